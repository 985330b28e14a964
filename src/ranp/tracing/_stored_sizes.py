"""Numbers that modules store and that count channels, found by trying.

A forward may compare the width of its input with `self.channels`, or split it by `self.splits`. Where it fails at other
widths, numbers of that module are resized with channels of which it sees as many; those that help are sizes of the
module, as `in_channels` is one of a convolution.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import TypeAlias

import numpy as np
from torch import nn

from ranp.graph import SizeAttribute
from ranp.tracing._adjustments import Size
from ranp.tracing._build import Build
from ranp.tracing._propagate import Tracer
from ranp.tracing._trials import Trial, Violation


@dataclass(frozen=True)
class Seen:
    """Channels along one dimension of an operator's output: their axis, their number, and where they were seen."""

    axis: int
    count: int
    where: Size


# Stored numbers, by the path of the module and their name, and the channels that they count.
Sizes: TypeAlias = Mapping[tuple[str, str], Seen]


def note_sizes(tracer: Tracer, sizes: Sizes) -> None:
    """Note stored numbers that count channels, once labels are propagated."""
    for key, seen in sizes.items():
        if (labels := tracer.along(seen.where)) is not None:
            tracer.attributes[key] = labels


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


@dataclass
class _Search:
    """Guesses that are left to try, for the first violation in each module that stores numbers."""

    trial: Trial
    groups: frozenset[int]
    violations: Sequence[Violation]
    guesses: dict[str, tuple[Violation, list[Sizes]]] = field(default_factory=dict)

    def add(self, violation: Violation, module: nn.Module) -> None:
        """Search for numbers of a module that help against a violation, unless this is done for an earlier one."""
        path = violation.note.path
        taken = {entry.name for entry in self.trial.built.graph.attributes if entry.module == path}
        numbers = [entries for entries in _numbers(module) if not taken & entries.keys()]
        if path not in self.guesses and numbers:
            self.guesses[path] = violation, list(_guesses(path, numbers, self._near(violation)))

    @cached_property
    def _seen(self) -> list[tuple[str, list[Seen]]]:
        return _all_seen(self.trial.built)

    def _near(self, violation: Violation) -> list[Seen]:
        """Channels that operators up to a violation return: its own, those of the same module, and all others."""
        before = self._seen[: violation.position + 1][::-1]
        own = before[:1] if not violation.ends else []
        same = [entry for entry in before if entry[0] == violation.note.path]
        return [seen for _, found in (*own, *same, *before) for seen in found]

    def found(self) -> dict[tuple[str, str], Seen]:
        """The numbers that help."""
        accepted: dict[tuple[str, str], Seen] = {}
        while current := {path: left[0] for path, (_, left) in self.guesses.items() if left}:
            together = {**accepted}
            for guess in current.values():
                together |= guess
            later = self._attempt(together)
            for path, guess in current.items():
                violation, left = self.guesses[path]
                left.pop(0)
                if self._helps(later, violation) and self._confirmed({**accepted, **guess}, guess, violation):
                    accepted |= guess
                    left.clear()
        return accepted

    def _attempt(self, sizes: Sizes, groups: frozenset[int] | None = None) -> Sequence[Violation]:
        return self.trial.with_attributes(as_attributes(sizes)).violations(self.groups if groups is None else groups)

    def _helps(self, later: Sequence[Violation], violation: Violation) -> bool:
        """Whether the forward of a module gets further, and does not fail in another way."""
        known = {earlier.position for earlier in self.violations}
        return not any(
            other.position == violation.position
            or (other.ends and other.position < violation.position)
            or (other.note.path == violation.note.path and other.position not in known and not other.change)
            for other in later
        )

    def _confirmed(self, sizes: Sizes, guess: Sizes, violation: Violation) -> bool:
        """Whether a guess also helps if only the groups change that it depends on.

        Others may have happened to have the same size. That is not so for outputs of the operator that failed.
        """
        if not violation.ends and all(self._flat(seen) == violation.position for seen in guess.values()):
            return True
        rows = self.trial.built.graph.costs.axes[[seen.axis for seen in guess.values()], :-1]
        own = frozenset(np.flatnonzero(rows.any(axis=0)).tolist()) & self.groups
        return self._helps(self._attempt(sizes, own), violation)

    def _flat(self, seen: Seen) -> int:
        """The number of an operator among those of all passes."""
        run, operator = seen.where.place
        return operator + sum(map(len, self.trial.built.predictions[:run]))


def _numbers(module: nn.Module) -> Iterator[dict[str, int]]:
    """The whole numbers that a module stores: one for each attribute, or several by position for a list."""
    for name, held in vars(module).items():
        entries = (
            {f"{name}[{n}]": entry for n, entry in enumerate(held)} if type(held) in (list, tuple) else {name: held}
        )
        if entries and not name.startswith("_") and all(map(_is_size, entries.values())):
            yield entries


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 1


def _all_seen(built: Build) -> list[tuple[str, list[Seen]]]:
    """For each operator of all passes its module and the channels in its outputs."""
    full = built.graph.costs.axes_at(built.graph.widths).tolist()
    shrinks = [bool(row[:-1].any()) for row in built.graph.costs.axes]
    return [
        (
            step.path,
            [
                Seen(axis, full[axis], Size((run, number), output, dim))
                for output, shape in enumerate(step.shapes)
                for dim, (factor, axis) in enumerate(shape)
                if factor == 1 and shrinks[axis]
            ],
        )
        for run, steps in enumerate(built.predictions)
        for number, step in enumerate(steps)
    ]


def _guesses(path: str, numbers: Sequence[Mapping[str, int]], seen: Sequence[Seen]) -> Iterator[Sizes]:
    """What numbers may count: each attribute alone the nearest channels, all together, each alone the next nearest."""
    nearest = [found for entries in numbers if (found := _matched(path, entries, seen))]
    yield from nearest
    if len(nearest) > 1:
        yield {key: counted for found in nearest for key, counted in found.items()}
    for found in nearest:
        axes = {counted.axis for counted in found.values()}
        entries = {name: counted.count for (_, name), counted in found.items()}
        if further := _matched(path, entries, [counted for counted in seen if counted.axis not in axes]):
            yield further


def _matched(path: str, entries: Mapping[str, int], seen: Sequence[Seen]) -> Sizes:
    """For each number the first channels of which there are as many; a list takes each place once."""
    found: dict[tuple[str, str], Seen] = {}
    used = set[Size]()
    for name, value in entries.items():
        counted = next((entry for entry in seen if entry.count == value and entry.where not in used), None)
        if counted is not None:
            used.add(counted.where)
            found[path, name] = counted
    return found
