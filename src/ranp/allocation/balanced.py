"""Equal shares of the scarce resource: every convolution gets the same elasticity of what the budget limits."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
import numpy.typing as npt

from ranp.allocation._grid import WidthGrid
from ranp.allocation._limits import Limit, require_feasible
from ranp.arguments import Must, require_fields
from ranp.errors import InputError
from ranp.graph import ChannelGraph, Floats, Ints
from ranp.scores import Scores


@dataclass(frozen=True)
class Balanced:
    """Maximize the sum of a * n * log(width) over the groups of channels, subject to every limit of the budget.

    n is the number of layers that produce the group's channels, and a its weight. At the optimum, the resource that a
    group costs is proportional to a * n for a small relative change of its width: no layer starves, and none is a
    bottleneck. Groups of the same resolution on the same side of the network (before its smallest resolution, or after
    it where the resolution grows again: the decoder) keep the same fraction of their full widths; without that, the
    narrow side of a concatenation would lose nearly all of its channels. The optimum is sought greedily from the
    narrowest network, and then by moving single classes and making room for them.

    Attributes:
        decoder: Weight of the groups of the decoder: with 0.5 they get half of the share that others get.
        use_scores: Whether a group's weight is its mean score, relative to that of all groups (as in HALP,
            arXiv 2110.10811), and not 1.

    Raises:
        InputError: `decoder` is not a positive number.
    """

    decoder: Annotated[float, Must(lambda value: value > 0, "a positive number", "for example 0.5")] = 1.0
    use_scores: bool = False

    def __post_init__(self) -> None:
        require_fields(self)

    def __str__(self) -> str:
        """The policy as text, which `policy_named` reads."""
        changed = [f"{entry.name}={getattr(self, entry.name)!r}" for entry in fields(self)]
        usual = [f"{entry.name}={entry.default!r}" for entry in fields(self)]
        given = ", ".join(text for text in changed if text not in usual)
        return f"balanced({given})" if given else "balanced"

    def __call__(self, graph: ChannelGraph, scores: Scores, grid: WidthGrid, limits: Sequence[Limit]) -> Ints:
        """The widths, of shape (groups,).

        Raises:
            BudgetError: Even the narrowest network exceeds a limit.
        """
        require_feasible(limits, grid.narrowest)
        classes, in_decoder = tied_groups(graph)
        weights = layers_per_group(graph) * np.where(in_decoder, self.decoder, 1.0)
        if self.use_scores:
            weights *= _mean_scores(graph, scores)
        return _Search(grid, limits, classes, weights).run()


# Fractions of the full widths that are tried, ascending, and by how many of them a class may move at once.
_FRACTIONS: Floats = 2.0 ** (np.arange(-80, 1) / 8)
_MOVES = (-2, -1, 1, 2)


class _Search:
    """Raises the widths of classes of groups step by step, then exchanges steps between them."""

    def __init__(self, grid: WidthGrid, limits: Sequence[Limit], classes: Ints, weights: Floats) -> None:
        self.grid, self.limits, self.classes = grid, limits, classes
        self.steps = [
            self._steps_of(np.flatnonzero(classes == number)) for number in range(max(classes, default=-1) + 1)
        ]
        # For each class and step the weighted sum of log(width) over its groups.
        self.utilities = [
            [float(weights[classes == number] @ np.log(widths)) for widths in steps]
            for number, steps in enumerate(self.steps)
        ]
        self.room = [max(limit.most - limit.cost(grid.narrowest), 1e-300) for limit in limits]

    def _steps_of(self, members: Ints) -> list[Ints]:
        """The widths that the groups of a class can have together: the same fraction of their full widths."""
        full, wanted = self.grid.graph.widths[members], np.zeros(len(self.classes))
        found = []
        for fraction in _FRACTIONS:
            wanted[members] = fraction * full
            found.append(tuple(self.grid.nearest(wanted)[members].tolist()))
        return [np.array(widths, dtype=np.int64) for widths in dict.fromkeys(found)]

    def run(self) -> Ints:
        """The widths of all groups."""
        even = [
            [min(place, len(steps) - 1) for steps in self.steps]
            for place in range(max(map(len, self.steps), default=0))
        ]
        starts = [[0] * len(self.steps), *[at for at in even if self._fits(self._costs(at))][-1:]]
        best = max(map(self._filled, starts), key=self._utility)
        while (better := self._improved(best)) is not None:
            best = better
        return self._widths(best)

    def _improved(self, at: list[int]) -> list[int] | None:
        """The best result of moving one class to another step, making room for it, and filling what is left."""
        best, chosen = self._utility(at) + 1e-9, None
        for number, steps in enumerate(self.steps):
            for place in {at[number] + move for move in _MOVES} & set(range(len(steps))):
                moved = self._made_to_fit(_replaced(at, number, place), number)
                if moved is not None and self._utility(filled := self._filled(moved)) > best:
                    best, chosen = self._utility(filled), filled
        return chosen

    def _made_to_fit(self, at: list[int], fixed: int) -> list[int] | None:
        """Lower other classes step by step, those first that lose least relative to what they save."""
        while not self._fits(costs := self._costs(at)):
            lowered = [
                _replaced(at, number, at[number] - 1) for number in range(len(at)) if number != fixed and at[number]
            ]
            if not lowered:
                return None
            at = min(lowered, key=lambda after: self._exchange_rate(after, at, self._costs(after), costs))
        return at

    def _filled(self, at: list[int]) -> list[int]:
        """Raise classes step by step as long as all limits hold, those first that gain most relative to their cost."""
        while True:
            costs = self._costs(at)
            raised = []
            for number, steps in enumerate(self.steps):
                after = _replaced(at, number, at[number] + 1)
                if at[number] + 1 < len(steps) and self._fits(higher := self._costs(after)):
                    raised.append((self._exchange_rate(at, after, costs, higher), after))
            if not raised:
                return at
            at = max(raised)[1]

    def _exchange_rate(self, low: list[int], high: list[int], cost: list[float], more: list[float]) -> float:
        """Utility gained relative to the part of the budget that it takes."""
        price = sum((new - old) / room for new, old, room in zip(more, cost, self.room, strict=True))
        return (self._utility(high) - self._utility(low)) / max(price, 1e-12)

    def _widths(self, at: list[int]) -> Ints:
        widths = np.zeros(len(self.classes), dtype=np.int64)
        for number, place in enumerate(at):
            widths[self.classes == number] = self.steps[number][place]
        return widths

    def _utility(self, at: list[int]) -> float:
        return sum(found[place] for found, place in zip(self.utilities, at, strict=True))

    def _costs(self, at: list[int]) -> list[float]:
        widths = self._widths(at)
        return [limit.cost(widths) for limit in self.limits]

    def _fits(self, costs: Sequence[float]) -> bool:
        return all(cost <= limit.most for cost, limit in zip(costs, self.limits, strict=True))


def _replaced(at: list[int], number: int, place: int) -> list[int]:
    return [*at[:number], place, *at[number + 1 :]]


def layers_per_group(graph: ChannelGraph) -> Floats:
    """How many layers produce the channels of every group, of shape (groups,)."""
    counts = np.zeros(len(graph.groups))
    for layer in graph.layers:
        counts[np.unique(graph.group_of[layer.channels[layer.channels >= 0]])] += 1
    return counts


def tied_groups(graph: ChannelGraph) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The class of every group, and whether it belongs to the decoder: both of shape (groups,).

    Groups of one class have the same resolution (positions of their first layer's output) and the same side: the
    decoder begins where, after the smallest resolution, the resolution grows.
    """
    positions = [layer.output_elements // layer.width for layer in graph.layers]
    smallest = max((place for place, size in enumerate(positions) if size == min(positions)), default=0)
    keys: list[tuple[int, bool]] = [(0, False)] * len(graph.groups)
    for place, layer in reversed([*enumerate(graph.layers)]):
        side = place > smallest and positions[place] > positions[smallest]
        for group in np.unique(graph.group_of[layer.channels[layer.channels >= 0]]).tolist():
            keys[group] = positions[place], side
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64), np.array([side for _, side in keys], dtype=bool)


def _mean_scores(graph: ChannelGraph, scores: Scores) -> Floats:
    """Mean score of every group, relative to the mean over the groups."""
    means = np.bincount(graph.group_of, scores.channels, minlength=len(graph.groups)) / graph.widths
    if not (means >= 0).all() or not means.any():
        raise InputError("scores", "weights of groups need scores that are not negative", hint="use use_scores=False")
    found: Floats = np.maximum(means / means.mean(), 1e-6)
    return found
