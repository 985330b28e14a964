"""One threshold over all channels, as low as the budget permits."""

from collections.abc import Callable
from functools import cache, cached_property
from importlib.metadata import version

import numpy as np

from ranp.budget import Budget
from ranp.costs import Cost
from ranp.errors import BudgetError, InputError
from ranp.graph import ChannelGraph, Ints
from ranp.plan import Plan, make_plan
from ranp.scores import Scores


def allocate(graph: ChannelGraph, scores: Scores, budget: Budget, *, min_width: int = 1, round_to: int = 1) -> Plan:
    """Keep the highest-scored channels of the whole network that the budget permits.

    Channels are ranked by score over all groups (Xu et al., RANP, 3DV 2020: global top-k), each group's best
    `min_width` first, and the longest prefix of that ranking that meets every limit is kept: the next channel would
    exceed one. Since prefixes are nested, a tighter budget never costs more.

    Args:
        graph: The traced model.
        scores: Scores of its channels.
        budget: Limits, all of which must hold.
        min_width: Channels that every group keeps at least (all, where it has fewer).
        round_to: Round widths down to multiples of this (but not below `min_width`); for hardware that likes such.

    Returns:
        The plan. The same arguments give the same plan.

    Raises:
        BudgetError: Even the narrowest network exceeds the budget; the message names the feasible minimum.
        InputError: `min_width` or `round_to` below 1, or scores of another model.
    """
    sweep = ThresholdSweep(graph, scores, min_width=min_width, round_to=round_to)
    keep = sweep.keep(sweep.widths(budget))
    return make_plan(
        graph,
        keep,
        budget=budget,
        criterion=scores.criterion,
        importance=scores.importance,
        resource_weight=scores.resource_weight,
        seed=scores.seed,
        min_width=min_width,
        round_to=round_to,
        versions={name: _version(name) for name in ("ranp", "torch")},
    )


_version = cache(version)  # It reads files.


class ThresholdSweep:
    """All plans that one threshold over some scores can give, from the narrowest network to the full one.

    Args:
        graph: The traced model.
        scores: Scores of its channels.
        min_width: See `allocate`.
        round_to: See `allocate`.

    Raises:
        InputError: `min_width` or `round_to` below 1, or scores of another model.
    """

    def __init__(self, graph: ChannelGraph, scores: Scores, *, min_width: int = 1, round_to: int = 1) -> None:
        for name, value in (("min_width", min_width), ("round_to", round_to)):
            if not isinstance(value, int) or value < 1:
                raise InputError(name, got=repr(value), expected="an integer of at least 1")
        if scores.channels.shape != graph.group_of.shape or not np.isfinite(scores.channels).all():
            raise InputError(
                "scores",
                got=f"an array of shape {scores.channels.shape}, finite: {np.isfinite(scores.channels).all()}",
                expected=f"finite scores of shape {graph.group_of.shape}",
                hint="score the same model that was traced",
            )
        self.graph, self.min_width, self.round_to = graph, min_width, round_to
        self.ranking, self.guarded = rank(graph, scores, min_width)

    @cached_property
    def order(self) -> dict[str, Ints]:
        """For each group its channels, those kept longest first."""
        order = np.lexsort((np.argsort(self.ranking), self.graph.group_of))
        starts = self.graph.offsets[:-1]
        return {
            group.name: order[start : start + group.width] - start
            for group, start in zip(self.graph.groups, starts, strict=True)
        }

    def keep(self, widths: Ints) -> dict[str, Ints]:
        """Which channels of each group stay at given widths, ascending."""
        return {name: np.sort(found[:width]) for (name, found), width in zip(self.order.items(), widths, strict=True)}

    def narrowest(self) -> Ints:
        """The least widths of all groups."""
        return self._widths_of(self.guarded)

    def widths(self, budget: Budget) -> Ints:
        """The largest widths of all groups that meet a budget.

        Raises:
            BudgetError: There are none; the message names the feasible minimum.
        """
        return self._widths_of(_longest_prefix(self.graph, budget, self._widths_of, self.guarded, len(self.ranking)))

    def _widths_of(self, count: int) -> Ints:
        found = np.bincount(self.graph.group_of[self.ranking[:count]], minlength=len(self.graph.groups))
        return round_widths(found, self.graph.widths, self.min_width, self.round_to)


def rank(graph: ChannelGraph, scores: Scores, min_width: int) -> tuple[Ints, int]:
    """Channels in the order in which they are kept, and how many of them are guarded by `min_width`.

    Ties go to the channel with the lower number.
    """
    by_score = np.argsort(-scores.channels, kind="stable")
    within = np.empty(len(by_score), dtype=np.int64)
    order = np.lexsort((np.argsort(by_score), graph.group_of))
    within[order] = np.arange(len(order)) - graph.offsets[graph.group_of[order]]
    guarded = within[by_score] < min_width
    return np.concatenate([by_score[guarded], by_score[~guarded]]), int(guarded.sum())


def round_widths(widths: Ints, full: Ints, min_width: int, round_to: int) -> Ints:
    """Round widths down to multiples, but not below the minimum.

    Example:
        >>> round_widths(np.array([7, 20, 5]), np.array([16, 32, 5]), 1, 8)
        array([ 7, 16,  5])
    """
    rounded = widths // round_to * round_to
    # A group too narrow for a multiple keeps its own width: rounding must not empty it.
    return np.where((widths == full) | (rounded < min_width) | (rounded == 0), widths, rounded)


def _longest_prefix(graph: ChannelGraph, budget: Budget, widths: Callable[[int], Ints], least: int, most: int) -> int:
    """Bisect for the largest number of channels whose cost meets all limits."""
    full = graph.cost()
    limits = budget.limits(full)

    def fits(count: int) -> bool:
        cost = graph.cost(widths(count))
        return all(getattr(cost, resource) <= limit for resource, limit in limits.items())

    if not fits(least):
        raise _infeasible(budget, graph.cost(widths(least)), full)
    while least < most:
        middle = (least + most + 1) // 2
        if fits(middle):
            least = middle
        else:
            most = middle - 1
    return least


def _infeasible(budget: Budget, narrowest: Cost, full: Cost) -> BudgetError:
    minimum = {
        "macs": narrowest.macs / full.macs if full.macs else 1,
        "params": narrowest.params / full.params,
        "activations": narrowest.activation_bytes / full.activation_bytes,
        "sparsity": 1 - narrowest.neurons / full.neurons,
    }
    feasible = ", ".join(
        f"{name} {'<=' if name == 'sparsity' else '>='} {_outward(minimum[name], name)}" for name, _ in budget.given()
    )
    return BudgetError(
        "allocate",
        got=", ".join(f"{name}={value}" for name, value in budget.given()),
        expected=f"a feasible budget: {feasible}",
        hint="raise the budget or lower min_width",
    )


def _outward(value: float, name: str) -> str:
    """Four significant digits, rounded to the feasible side."""
    step = 10.0 ** (np.floor(np.log10(max(value, 1e-12))) - 3)
    return f"{(np.floor if name == 'sparsity' else np.ceil)(value / step) * step:.6g}"
