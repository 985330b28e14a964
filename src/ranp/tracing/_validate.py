"""Validating labels: the model runs at reduced widths, without values, and every shape is compared with its prediction.

A forward may rely on the number of channels (in a reshape, for example). The groups concerned are found by trying which
of them have to keep their width for the forward to work.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeAlias

from ranp.errors import TraceError
from ranp.graph import ChannelGraph
from ranp.tracing._build import Build, build
from ranp.tracing._capture import Call, ModelCapture
from ranp.tracing._propagate import Note, Rule, Tracer, propagate
from ranp.tracing._requests import Requests, WidthTrial
from ranp.tracing._rescale import note_rescalings
from ranp.tracing._stored_sizes import Seen, as_attributes, note_sizes, stored_sizes
from ranp.tracing._trials import TURNS, Trial, Violation, all_signatures


def validated(capture: ModelCapture, find_rule: Callable[[Call], Rule]) -> ChannelGraph:
    """Propagate labels through captured passes, and return a graph that is right at all widths that were tried."""
    requests, signatures = Requests(capture, find_rule), all_signatures(capture)
    sizes: dict[tuple[str, str], Seen] = {}
    turn = 0
    while True:
        if requests.adjustments.stale:
            tracer = propagate(capture, find_rule, requests.adjustments)
        tracer.adjust()
        note_sizes(tracer, sizes)
        built = build(capture.meta_model, tracer)
        trial = Trial(capture, signatures, built, turn)
        if not trial.repeatable:
            if capture.again:
                problem, hint = "runs other operators each time it is called", "remove what it remembers between calls"
                raise TraceError("forward of the model", problem, hint=hint)
            capture = capture.repeated()
            requests, signatures = Requests(capture, find_rule), all_signatures(capture)
            continue
        turn = turn % (TURNS - 1) + 1
        if _answered(requests, tracer, trial):
            continue
        blocking, found = _all_blocking_groups(trial)
        sizes |= found
        # A view that splits channels so that all of them are coupled may split them in another way.
        doubted = {place: dims for place, (dims, alone) in built.splits.items() if alone}
        if sum(requests.adjustments.turn(place, dims) for place, dims in doubted.items()):
            continue
        note_sizes(tracer, found)
        if found and _answered(requests, tracer, trial.with_attributes(as_attributes(found))):
            continue
        note_rescalings(tracer, capture, find_rule)
        if blocking or found or requests.adjustments.factors:
            _block(tracer, built, blocking)
            built = build(capture.meta_model, tracer, predict=False)
        return replace(built.graph, untraced_training_mode=capture.untraced_training_mode)


def _answered(requests: Requests, tracer: Tracer, trial: Trial) -> bool:
    """Whether labels were adjusted to what the forward asks for at other widths, so that it has to be tried again."""
    groups = frozenset(range(len(trial.built.graph.groups)))
    violations = trial.violations(groups)
    sizes = WidthTrial(trial.built, trial.widths(groups))
    if sum(requests.view(sizes, entry.place, entry.asked) for entry in violations if entry.asked):
        return True
    return sum(requests.number(tracer, sizes, entry.place, entry.change) for entry in violations if entry.change) > 0


def _all_blocking_groups(trial: Trial) -> tuple[dict[int, Note], dict[tuple[str, str], Seen]]:
    """All groups whose widths the forward relies on, each with what fails otherwise; and stored numbers of channels."""
    found: dict[int, Note] = {}
    sizes: dict[tuple[str, str], Seen] = {}
    doubtful = trial.turn > 0 or trial.sized
    groups = frozenset(range(len(trial.built.graph.groups)))
    turns: list[int] = []
    for turn in (trial.turn, *({*range(TURNS)} - {trial.turn})):
        trial = trial if turn == trial.turn else trial.at_turn(turn)
        turns.append(turn)
        while groups and (violations := trial.violations(groups)):
            doubtful |= any(entry.differs for entry in violations)
            if more := stored_sizes(trial, trial.meta_model.modules, groups, violations):
                sizes |= more
                trial = trial.with_attributes(as_attributes(more))
                continue
            # Where the outputs of an operator should depend on one group alone, that group has to keep its width.
            shapes = [entry for entry in violations if not entry.differs]
            alone = {min(held): entry.note for entry in shapes if len(held := entry.groups & groups) == 1}
            found |= alone or blocking_groups(groups, violations, trial.violations, trial.latest)
            groups = groups.difference(found)
        # A forward that does the same with few channels as with all does not look at their number.
        if not doubtful or (len(turns) > 1 and trial.tells_apart(turns)):
            break
    return found, sizes


def _block(tracer: Tracer, built: Build, blocking: Mapping[int, Note]) -> None:
    """Mark the channels of groups as unprunable."""
    for made in (call.out for call in tracer.passes[0].layers if call.out is not None):
        groups = built.group_of[made]
        for group in set(groups.tolist()) & blocking.keys():
            tracer.unprunable.append((made[groups == group], blocking[group]))


# -- search ------------------------------------------------------------------------------------------------------------

# Runs the model with these groups resized.
Attempt: TypeAlias = Callable[[frozenset[int]], Sequence[Violation]]

# Yields groups to leave at full width, receives whether that helps, and returns those that are needed.
_Search: TypeAlias = Generator[list[int], bool | None, list[int]]


def blocking_groups(
    groups: frozenset[int], violations: Sequence[Violation], attempt: Attempt, latest: Callable[[int], list[int]]
) -> dict[int, Note]:
    """Groups that have to keep their width for a forward to get past violations, each with what fails otherwise.

    The outputs of an operator should depend on the groups in them: these are the candidates, and operators that have
    none in common are searched at the same time. Where that does not help, or the forward fails between operators, the
    candidates are all groups so far, the latest first: `latest` returns them, given the number of an operator.
    """
    candidates: dict[Violation, list[int]] = {}
    for violation in violations:
        if (own := violation.groups & groups) and own.isdisjoint(chain(*candidates.values())):
            candidates[violation] = sorted(own)
    found = _searched(groups, candidates, attempt)
    # What helped together with others has to help alone.
    helping = {entry: kept for entry, kept in found.items() if _helps(attempt(groups.difference(kept)), entry)}
    if not helping:
        first = violations[0]
        met = [group for group in latest(first.position) if group in groups] or sorted(groups)
        helping = _searched(groups, {first: met}, attempt)
    return {group: entry.note for entry, kept in helping.items() for group in kept}


def _searched(
    groups: frozenset[int], candidates: Mapping[Violation, list[int]], attempt: Attempt
) -> dict[Violation, list[int]]:
    """For each violation the groups that are needed to get past it; all searches share their attempts."""
    searches = {violation: _search(found) for violation, found in candidates.items()}
    kept: dict[Violation, list[int]] = {}
    later: Sequence[Violation] = ()
    while True:
        for violation, search in [*searches.items()]:
            try:
                kept[violation] = search.send(_helps(later, violation) if violation in kept else None)
            except StopIteration as end:
                kept[violation] = end.value
                del searches[violation]
        if not searches:
            return kept
        later = attempt(groups.difference(*kept.values()))


def _helps(later: Sequence[Violation], violation: Violation) -> bool:
    """Whether a forward got past a violation this time."""
    return not any(
        other.position == violation.position or (other.ends and other.position < violation.position) for other in later
    )


def _search(candidates: list[int]) -> _Search:
    """As few candidates as help, from the first on; usually one.

    Where the last of them does not help alone, all up to it are needed.
    """
    count = 1
    while count < len(candidates) and not (yield candidates[:count]):
        count *= 2
    low, high = count // 2 + 1, min(count, len(candidates))
    while low < high:
        middle = (low + high) // 2
        if (yield candidates[:middle]):
            high = middle
        else:
            low = middle + 1
    last = candidates[low - 1]
    return [last] if low > 1 and (yield [last]) else candidates[:low]
