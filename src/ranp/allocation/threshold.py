"""One threshold over all channels, as low as the budget permits."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version

import numpy as np

from ranp.arguments import Count, checked
from ranp.budget import Budget
from ranp.costs import RESOURCES, Resource
from ranp.errors import BudgetError, InputError, nearest
from ranp.graph import ChannelGraph, Ints
from ranp.plan import Plan, make_plan
from ranp.scores import Scores, rank_within_groups


@checked
def allocate(
    graph: ChannelGraph,
    scores: Scores,
    budget: Budget,
    *,
    min_width: Count = 1,
    round_to: Count = 1,
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

    Args and errors are those of `allocate`.
    """

    def __init__(self, graph: ChannelGraph, scores: Scores, *, min_width: int = 1, round_to: int = 1) -> None:
        for name, value in (("min_width", min_width), ("round_to", round_to)):
            if not isinstance(value, int) or value < 1:
                raise InputError(name, got=repr(value), expected="an integer of at least 1")
        shape, finite = scores.channels.shape, np.isfinite(scores.channels).all()
        if shape != graph.group_of.shape or not finite:
            problem = f"the graph needs finite scores of shape {graph.group_of.shape}, not {shape} (finite: {finite})"
            raise InputError("scores", problem, hint="score the same model that was traced")
        self.graph, self.scores, self.min_width, self.round_to = graph, scores, min_width, round_to
        self.ranking, self.guarded = rank(graph, scores, min_width)

    @cached_property
    def order(self) -> dict[str, Ints]:
        """For each group its channels, best first."""
        ranks = rank_within_groups(self.graph, self.scores.channels)
        return {
            group.name: np.argsort(ranks[start : start + group.width])
            for group, start in zip(self.graph.groups, self.graph.offsets, strict=False)
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

        def exceeds(count: int) -> bool:
            widths = self._widths_of(count)
            return not all(limit.permits(widths) for limit in limits)

        if exceeds(self.guarded):
            got = ", ".join(f"{limit.resource.limit}={limit.fraction}" for limit in limits)
            feasible = ", ".join(limit.loosened(self.narrowest()) for limit in limits)
            expected, hint = f"a feasible budget: {feasible}", "raise the budget or lower min_width"
            raise BudgetError("allocate", got=got, expected=expected, hint=hint)
        counts = range(self.guarded, len(self.ranking) + 1)
        return self._widths_of(counts[bisect_left(counts, True, key=exceeds) - 1])

    def _widths_of(self, count: int) -> Ints:
        """Widths with the best `count` channels, rounded down to multiples but not below the minimum."""
        widths = np.bincount(self.graph.group_of[self.ranking[:count]], minlength=len(self.graph.groups))
        rounded = widths // self.round_to * self.round_to
        # A group too narrow for a multiple keeps its own width: rounding must not empty it.
        own = (widths == self.graph.widths) | (rounded < self.min_width) | (rounded == 0)
        return np.where(own, widths, rounded)


def rank(graph: ChannelGraph, scores: Scores, min_width: int) -> tuple[Ints, int]:
    """Channels in the order in which they are kept, and how many of them are guarded by `min_width`.

    Ties go to the channel with the lower number.
    """
    best_first = np.argsort(-scores.channels, kind="stable")
    guarded = rank_within_groups(graph, scores.channels)[best_first] < min_width
    return np.concatenate([best_first[guarded], best_first[~guarded]]), int(guarded.sum())


@dataclass(frozen=True)
class _Limit:
    """The most that a plan may use of one resource: a fraction, as the budget gives it, of `full`."""

    resource: Resource
    fraction: float
    graph: ChannelGraph
    full: float

    def permits(self, widths: Ints) -> bool:
        # 10 * (1 - 0.9) is 0.9999999999999998: a limit must not be missed by a rounding error.
        most = self.resource.most(self.fraction, self.full) * (1 + 1e-12)
        return self.resource.cost(self.graph, widths) <= most

    def loosened(self, widths: Ints) -> str:
        """The limit that these widths just meet, as text."""
        resource = self.resource
        bound = resource.fraction(resource.cost(self.graph, widths), self.full)
        return f"{resource.limit} {'<=' if resource.removes else '>='} {_outward(bound, up=not resource.removes)}"


def _limits(graph: ChannelGraph, budget: Budget, resources: Sequence[Resource]) -> list[_Limit]:
    known = {resource.limit: resource for resource in (*RESOURCES, *resources)}
    limits = []
    for name, fraction in (*budget.given(), *budget.custom.items()):
        if name not in known:
            hint = f"pass it in resources=; {nearest(name, known)}"
            raise BudgetError("budget", f"it limits {name!r}, which is not a known resource", hint=hint)
        limits.append(_Limit(known[name], fraction, graph, known[name].cost(graph, graph.widths)))
    return limits


def _outward(value: float, *, up: bool) -> str:
    """Four significant digits, rounded to the feasible side."""
    step = 10.0 ** (np.floor(np.log10(max(value, 1e-12))) - 3)
    return f"{(np.ceil if up else np.floor)(value / step) * step:.6g}"
