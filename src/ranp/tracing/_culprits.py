"""Which groups a forward counts on: sought by trying out which ones help where they are left whole."""

from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from ranp.tracing._records import Note
from ranp.tracing._trace import Failure

# Runs the model with these groups narrowed.
Attempt: TypeAlias = Callable[[frozenset[int]], Sequence[Failure]]

# Asks whether it helps to leave some groups whole, and ends with those that it takes.
Search: TypeAlias = Generator[list[int], bool | None, list[int]]


def culprits(
    groups: frozenset[int], failures: Sequence[Failure], attempt: Attempt, latest: Callable[[int], list[int]]
) -> dict[int, Note]:
    """Groups to leave whole for a forward to get beyond failures, each with what goes wrong.

    What an operator returns should depend on the groups in it: these are the suspects, and operators that have none in
    common are looked into side by side. Where that does not help, or the forward fails between operators, it is all
    groups met so far, those met last first.

    Args:
        groups: The groups that were narrowed.
        failures: What went wrong then, in order; at least one.
        attempt: Tries out others.
        latest: From the number of an operator to the groups met so far, those met last first.
    """
    suspects: dict[Failure, list[int]] = {}
    for failure in failures:
        if (own := failure.groups & groups) and own.isdisjoint(chain(*suspects.values())):
            suspects[failure] = sorted(own)
    found = _sought(groups, suspects, attempt)
    # What helped beside others has to help alone.
    helping = {failure: whole for failure, whole in found.items() if _helps(attempt(groups.difference(whole)), failure)}
    if not helping:
        first = failures[0]
        met = [group for group in latest(first.position) if group in groups] or sorted(groups)
        helping = _sought(groups, {first: met}, attempt)
    return {group: failure.note for failure, whole in helping.items() for group in whole}


def _sought(
    groups: frozenset[int], suspects: Mapping[Failure, list[int]], attempt: Attempt
) -> dict[Failure, list[int]]:
    """For each failure the groups that it takes; all searches share their attempts."""
    searches = {failure: _search(found) for failure, found in suspects.items()}
    whole: dict[Failure, list[int]] = {}
    later: Sequence[Failure] = ()
    while True:
        for failure, search in [*searches.items()]:
            try:
                whole[failure] = search.send(_helps(later, failure) if failure in whole else None)
            except StopIteration as end:
                whole[failure] = end.value
                del searches[failure]
        if not searches:
            return whole
        later = attempt(groups.difference(*whole.values()))


def _helps(later: Sequence[Failure], failure: Failure) -> bool:
    """Whether a forward that failed got beyond that this time."""
    return not any(
        other.position == failure.position or (other.ends and other.position < failure.position) for other in later
    )


def _search(suspects: list[int]) -> Search:
    """As few suspects as help, from the first on; most often it is one. Where one alone does not do, all up to it."""
    count = 1
    while count < len(suspects) and not (yield suspects[:count]):
        count *= 2
    low, high = count // 2 + 1, min(count, len(suspects))
    while low < high:
        middle = (low + high) // 2
        if (yield suspects[:middle]):
            high = middle
        else:
            low = middle + 1
    last = suspects[low - 1]
    return [last] if low > 1 and (yield [last]) else suspects[:low]
