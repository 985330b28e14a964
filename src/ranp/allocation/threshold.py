"""One threshold over all channels, as low as the budget permits."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.metadata import version

import numpy as np

from ranp.budget import Budget
from ranp.costs import RESOURCES, Resource
from ranp.errors import BudgetError, InputError, nearest
from ranp.graph import ChannelGraph, Ints
from ranp.plan import Plan, make_plan
from ranp.scores import Scores


def allocate(
    graph: ChannelGraph,
    scores: Scores,
    budget: Budget,
    *,
    min_width: int = 1,
    round_to: int = 1,
    resources: Sequence[Resource] = (),
) -> Plan:
    """Keep the highest-scored channels of the whole network that the budget permits.

    Channels are ranked by score over all groups (Xu et al., RANP, 3DV 2020: global top-k), each group's best
    `min_width` first, and the longest prefix of that ranking that meets every limit is kept: the next channel would
    exceed one. Since prefixes are nested, a tighter budget never costs more.

    Args:
        graph: The traced model.
        scores: Scores of its channels.
        budget: Limits, all of which must hold.
        min_width: Channels that every group keeps at least (all, where it has fewer).
        round_to: Round widths down to multiples of this (but not below `min_width`), for hardware that prefers them.
        resources: Resources of your own that the budget limits by `custom`. Their cost must not grow when a width
            shrinks.

    Returns:
        The plan. The same arguments give the same plan.

    Raises:
        BudgetError: Even the narrowest network exceeds the budget (the message names the feasible minimum), or the
            budget limits a resource that is not in `resources`.
        InputError: `min_width` or `round_to` below 1, or scores of another model.
    """
    sweep = ThresholdSweep(graph, scores, min_width=min_width, round_to=round_to)
    keep = sweep.keep(sweep.widths(budget, resources))
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
        """For each group its channels, best first."""
        order = np.lexsort((np.argsort(self.ranking), self.graph.group_of))
        starts = self.graph.offsets[:-1]
        return {
            group.name: order[start : start + group.width] - start
            for group, start in zip(self.graph.groups, starts, strict=True)
        }

    def keep(self, widths: Ints) -> dict[str, Ints]:
        """The channels of each group that are kept at given widths, ascending."""
        return {name: np.sort(found[:width]) for (name, found), width in zip(self.order.items(), widths, strict=True)}

    def narrowest(self) -> Ints:
        """The least widths of all groups."""
        return self._widths_of(self.guarded)

    def widths(self, budget: Budget, resources: Sequence[Resource] = ()) -> Ints:
        """The largest widths of all groups that meet a budget; see `allocate`.

        Raises:
            BudgetError: There are none; the message names the feasible minimum.
        """
        limits = _limits(self.graph, budget, resources)
        if not _meets(limits, self.narrowest()):
            raise _infeasible(limits, self.narrowest())
        least, most = self.guarded, len(self.ranking)
        while least < most:
            middle = (least + most + 1) // 2
            if _meets(limits, self._widths_of(middle)):
                least = middle
            else:
                most = middle - 1
        return self._widths_of(least)

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


@dataclass(frozen=True)
class _Limit:
    """The most that a plan may use of one resource.

    Attributes:
        resource: The resource.
        fraction: The limit as the budget gives it.
        full: What the full network uses.
        cost: From the kept widths of all groups to what they use.
    """

    resource: Resource
    fraction: float
    full: float
    cost: Callable[[Ints], float]

    @property
    def most(self) -> float:
        """The limit as an amount."""
        # 10 * (1 - 0.9) is 0.9999999999999998: a limit must not be missed by a rounding error.
        return self.resource.most(self.fraction, self.full) * (1 + 1e-12)


def _limits(graph: ChannelGraph, budget: Budget, resources: Iterable[Resource]) -> list[_Limit]:
    """All limits of a budget as functions of the widths."""
    known = {resource.limit: resource for resource in (*RESOURCES, *resources)}
    limits = []
    for name, fraction in (*budget.given(), *budget.custom.items()):
        if name not in known:
            hint = f"pass it in resources=; {nearest(name, known)}"
            raise BudgetError("budget", f"it limits {name!r}, which is not a known resource", hint=hint)
        cost = partial(known[name].cost, graph)
        limits.append(_Limit(known[name], fraction, cost(graph.widths), cost))
    return limits


def _meets(limits: Iterable[_Limit], widths: Ints) -> bool:
    return all(limit.cost(widths) <= limit.most for limit in limits)


def _infeasible(limits: Sequence[_Limit], narrowest: Ints) -> BudgetError:
    feasible = []
    for limit in limits:
        resource, bound = limit.resource, limit.resource.fraction(limit.cost(narrowest), limit.full)
        sign = "<=" if resource.removes else ">="
        feasible.append(f"{resource.limit} {sign} {_outward(bound, up=not resource.removes)}")
    return BudgetError(
        "allocate",
        got=", ".join(f"{limit.resource.limit}={limit.fraction}" for limit in limits),
        expected=f"a feasible budget: {', '.join(feasible)}",
        hint="raise the budget or lower min_width",
    )


def _outward(value: float, *, up: bool) -> str:
    """Four significant digits, rounded to the feasible side."""
    step = 10.0 ** (np.floor(np.log10(max(value, 1e-12))) - 3)
    return f"{(np.ceil if up else np.floor)(value / step) * step:.6g}"
