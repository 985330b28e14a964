"""Numbers that modules store and that count channels, found by trying.

A forward may compare the width of its input with `self.channels`, or split it by `self.splits`. Where it fails at other
widths, numbers of that module are resized with channels of which it sees as many; those that help are sizes of the
module, as `in_channels` is one of a convolution.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Protocol, TypeAlias

import numpy as np
from torch import nn

from ranp.graph import SizeAttribute
from ranp.tracing._build import Build
from ranp.tracing._labels import along, first_along
from ranp.tracing._propagate import Note, Tracer


@dataclass(frozen=True)
class Seen:
    """Channels along one dimension of an operator's output: their axis, their number, and the place.

    The place consists of the numbers of the pass, of the operator in it, of its output, and of the dimension.
    """

    axis: int
    size: int
    place: tuple[int, int, int, int]
    path: str  # of the module in whose forward the operator ran
    position: int  # its number among the operators of all passes


# Stored numbers, by the path of the module and their name, and the channels that they count.
Sizes: TypeAlias = Mapping[tuple[str, str], Seen]


class Violation(Protocol):
    """Where a forward fails at other widths; see `_validate`."""

    @property
    def position(self) -> int: ...
    @property
    def note(self) -> Note: ...
    @property
    def ends(self) -> bool: ...
    @property
    def change(self) -> float: ...


class Trial(Protocol):
    """Runs of a model at other widths; see `_validate`."""

    built: Build

    def with_attributes(self, attributes: Sequence[SizeAttribute]) -> "Trial": ...
    def attempt(self, groups: frozenset[int]) -> Sequence[Violation]: ...


def note_sizes(tracer: Tracer, sizes: Sizes) -> None:
    """Note stored numbers that count channels, once labels are propagated."""
    for key, seen in sizes.items():
        run, operator, output, dim = seen.place
        for labels in tracer.passes[run].operators[operator].outputs[output][1]:
            if along(labels, dim):
                tracer.attributes[key] = first_along(labels, dim)


def as_attributes(sizes: Sizes) -> list[SizeAttribute]:
    """The same as attributes of a graph."""
    return [SizeAttribute(*key, seen.axis) for key, seen in sizes.items()]


def stored_sizes(
    trial: Trial, modules: Mapping[str, nn.Module], groups: frozenset[int], violations: Sequence[Violation]
) -> dict[tuple[str, str], Seen]:
    """Numbers that let a forward get past violations where they are resized; all modules are tried at the same time."""
    search = _Search(trial, groups, violations)
    for violation in violations:
        search.add(violation, modules[violation.note.path])
    return search.found()


class _Search:
    """Guesses which numbers of modules count which channels."""

    def __init__(self, trial: Trial, groups: frozenset[int], violations: Sequence[Violation]) -> None:
        self.trial, self.groups = trial, groups
        self.known = {violation.position for violation in violations}
        self.seen = list(_all_seen(trial.built))
        self.numbers: dict[str, tuple[Violation, list[dict[str, int]]]] = {}
        self.accepted: dict[tuple[str, str], Seen] = {}

    def add(self, violation: Violation, module: nn.Module) -> None:
        """Search for numbers of a module that help against a violation, unless this is done for an earlier one."""
        path = violation.note.path
        taken = {entry.name for entry in self.trial.built.graph.attributes if entry.module == path}
        numbers = [entries for entries in _numbers(module) if not taken & entries.keys()]
        if path not in self.numbers and numbers:
            self.numbers[path] = violation, numbers

    def found(self) -> dict[tuple[str, str], Seen]:
        """The numbers that help, if they count the nearest channels of their size or, failing that, the next nearest."""
        for rank in (0, 1):
            guesses = {path: list(self._guesses(path, rank)) for path in self.numbers}
            together = {path: _joined(parts) for path, parts in guesses.items() if parts}
            further, helped = self._try(together)
            # Where not even all numbers together get the forward further, none does alone.
            for number in range(max((len(guesses[path]) for path in further), default=0)):
                left = [path for path in further & self.numbers.keys() if number < len(guesses[path]) > 1]
                alone = {path: guesses[path][number] for path in left}
                self._accept(alone, self._try(alone)[1])
            self._accept(together, helped)
        return self.accepted

    def _try(self, guesses: Mapping[str, Sizes]) -> tuple[set[str], set[str]]:
        """Try a guess for each of several modules: the modules whose forwards get further, and those it helps."""
        if not guesses:
            return set(), set()
        later = self._attempt({**self.accepted, **_joined(guesses.values())})
        violations = {path: self.numbers[path][0] for path in guesses}
        stuck = {other.position for other in later}
        further = {path for path, violation in violations.items() if violation.position not in stuck}
        return further, {path for path, violation in violations.items() if self._helps(later, violation)}

    def _accept(self, guesses: Mapping[str, Sizes], helped: set[str]) -> None:
        """Accept guesses that help, and search no more in their modules."""
        for path in helped & guesses.keys() & self.numbers.keys():
            if self._confirmed(guesses[path], self.numbers[path][0]):
                self.accepted |= guesses[path]
                del self.numbers[path]

    def _attempt(self, sizes: Sizes, groups: frozenset[int] | None = None) -> Sequence[Violation]:
        return self.trial.with_attributes(as_attributes(sizes)).attempt(self.groups if groups is None else groups)

    def _helps(self, later: Sequence[Violation], violation: Violation) -> bool:
        """Whether the forward of a module gets further, and does not fail in another way."""
        return not any(
            other.position == violation.position
            or (other.ends and other.position < violation.position)
            or (other.note.path == violation.note.path and other.position not in self.known and not other.change)
            for other in later
        )

    def _confirmed(self, guess: Sizes, violation: Violation) -> bool:
        """Whether a guess also helps if only the groups change that it depends on.

        Others may have happened to have the same size. That is not so for outputs of the operator that failed.
        """
        if not violation.ends and all(seen.position == violation.position for seen in guess.values()):
            return True
        rows = self.trial.built.graph.costs.axes[[seen.axis for seen in guess.values()], :-1]
        own = frozenset(np.flatnonzero(rows.any(axis=0)).tolist()) & self.groups
        return self._helps(self._attempt({**self.accepted, **guess}, own), violation)

    def _guesses(self, path: str, rank: int) -> Iterator[Sizes]:
        """What each number of a module may count: the nearest channels of its size, or by rank others."""
        violation, numbers = self.numbers[path]
        before = [seen for seen in reversed(self.seen) if seen.position <= violation.position]
        own = [seen for seen in before if seen.position == violation.position and not violation.ends][::-1]
        near = [*own, *(seen for seen in before if seen.path == path), *before]
        for entries in numbers:
            if found := _matched(path, entries, near, rank):
                yield found


def _joined(guesses: Iterable[Sizes]) -> Sizes:
    return {key: seen for guess in guesses for key, seen in guess.items()}


def _matched(path: str, entries: Mapping[str, int], near: Sequence[Seen], rank: int) -> Sizes:
    """The nearest channels that each number may count, or the next; entries of a list count different places."""
    found: dict[tuple[str, str], Seen] = {}
    for name, value in entries.items():
        taken = {seen.place for seen in found.values()}
        by_axis: dict[int, Seen] = {}
        for seen in near:
            if seen.size == value and seen.place not in taken:
                by_axis.setdefault(seen.axis, seen)
        found.update(((path, name), seen) for seen in islice(by_axis.values(), rank, rank + 1))
    return found


def _numbers(module: nn.Module) -> Iterator[dict[str, int]]:
    """The whole numbers that a module stores: one for each attribute, or several by position for a list."""
    for name, held in vars(module).items():
        entries = {name: held}
        if type(held) in (list, tuple):
            entries = {f"{name}[{number}]": entry for number, entry in enumerate(held)}
        if entries and not name.startswith("_") and all(map(_is_size, entries.values())):
            yield entries


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 1


def _all_seen(built: Build) -> Iterator[Seen]:
    """All channels that may shrink, in the order of the operators that returned them."""
    full = built.graph.costs.axes_at(built.graph.widths).tolist()
    shrinks = [bool(row[:-1].any()) for row in built.graph.costs.axes]
    steps = [(run, number, step) for run, steps in enumerate(built.predictions) for number, step in enumerate(steps)]
    for position, (run, number, step) in enumerate(steps):
        for output, shape in enumerate(step.shapes):
            for dim, (factor, axis) in enumerate(shape):
                if factor == 1 and shrinks[axis]:
                    yield Seen(axis, full[axis], (run, number, output, dim), step.path, position)
