"""From a graph, scores and a budget to a plan."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from ranp.allocation._grid import WidthGrid
from ranp.allocation._limits import Limit, limits_of, require_feasible
from ranp.allocation.balanced import Balanced
from ranp.allocation.threshold import threshold
from ranp.arguments import Count, checked
from ranp.budget import Budget
from ranp.costs import Resource
from ranp.errors import InputError, nearest
from ranp.graph import ChannelGraph, Ints
from ranp.plan import Plan, make_plan
from ranp.scores import Scores, rank_within_groups

Policy: TypeAlias = Callable[[ChannelGraph, Scores, WidthGrid, Sequence[Limit]], Ints]
"""From a graph, scores, the widths that groups may have and the limits to the width of every group."""

POLICIES: Mapping[str, Policy] = MappingProxyType({"threshold": threshold, "balanced": Balanced()})


@checked
def allocate(
    graph: ChannelGraph,
    scores: Scores,
    budget: Budget,
    *,
    policy: str | Balanced = "threshold",
    min_width: Count | None = None,
    round_to: Count | None = None,
    resources: Sequence[Resource] = (),
) -> Plan:
    """Decide how many channels every group keeps within a budget, and keep those with the highest scores.

    Args:
        graph: The traced model.
        scores: Scores of its channels.
        budget: Limits, all of which must hold.
        policy: `threshold` keeps the highest-scored channels of the whole network (the paper's global top-k);
            `balanced` gives all layers equal shares of what the budget limits, see `ranp.allocation.Balanced`. Its
            options are part of the name: `balanced(decoder=0.5)`, or an instance.
        min_width: Channels that every group keeps at least (all, where it has fewer). By default 2, and half of the
            share of its channels that groups keep on average.
        round_to: Widths are multiples of this, or a group's full width. By default of 8; groups can also have 2 or 4
            channels.
        resources: Resources of your own that the budget limits by `custom`. Their cost must not grow when a width
            shrinks.

    Returns:
        The plan. The same arguments give the same plan.

    Raises:
        BudgetError: Even the narrowest network exceeds the budget (the message names the feasible minimum), or the
            budget limits a resource whose cost is not known.
        InputError: An unknown policy, `min_width` or `round_to` below 1, or scores of another model.
    """
    widths = allocated_widths(
        graph, scores, budget, policy=policy, min_width=min_width, round_to=round_to, resources=resources
    )
    order = channels_by_score(graph, scores)
    return make_plan(
        graph,
        {name: np.sort(found[:width]) for (name, found), width in zip(order.items(), widths, strict=True)},
        budget=budget,
        criterion=scores.criterion,
        importance=scores.importance,
        resource_weight=scores.resource_weight,
        seed=scores.seed,
        policy=str(policy),
        min_width=min_width,
        round_to=round_to,
        versions={name: _version(name) for name in ("ranp", "torch")},
    )


def allocated_widths(
    graph: ChannelGraph,
    scores: Scores,
    budget: Budget,
    *,
    policy: str | Balanced = "threshold",
    min_width: int | None = None,
    round_to: int | None = None,
    resources: Sequence[Resource] = (),
) -> Ints:
    """The width of every group, of shape (groups,); arguments and errors are those of `allocate`."""
    shape, finite = scores.channels.shape, np.isfinite(scores.channels).all()
    if shape != graph.group_of.shape or not finite:
        problem = f"the graph needs finite scores of shape {graph.group_of.shape}, not {shape} (finite: {finite})"
        raise InputError("scores", problem, hint="score the same model that was traced")
    return policy_named(policy)(
        graph, scores, WidthGrid(graph, min_width, round_to), limits_of(graph, budget, resources)
    )


def channels_by_score(graph: ChannelGraph, scores: Scores) -> dict[str, Ints]:
    """For each group its channels, best first."""
    ranks = rank_within_groups(graph, scores.channels)
    return {
        group.name: np.argsort(ranks[start : start + group.width])
        for group, start in zip(graph.groups, graph.offsets, strict=False)
    }


def require_feasible_budget(
    graph: ChannelGraph,
    budget: Budget,
    *,
    min_width: int | None = None,
    round_to: int | None = None,
    resources: Sequence[Resource] = (),
) -> None:
    """Refuse a budget that no plan meets, without any scores; arguments and errors are those of `allocate`."""
    require_feasible(limits_of(graph, budget, resources), WidthGrid(graph, min_width, round_to).narrowest)


def policy_named(policy: str | Balanced) -> Policy:
    """The policy with that name, or the given one.

    Raises:
        InputError: An unknown name or option.

    Example:
        >>> policy_named("balanced(decoder=0.5)")
        Balanced(decoder=0.5, use_scores=False)
    """
    if isinstance(policy, Balanced):
        return policy
    match = _POLICY.fullmatch(str(policy))
    if match is None or match[1] not in POLICIES:
        raise InputError("policy", f"{policy!r:.60} is unknown", hint=nearest(str(policy), POLICIES))
    if not match[2]:
        return POLICIES[match[1]]
    options = [option.partition("=") for option in match[2].replace(" ", "").split(",")]
    known = {entry.name for entry in fields(Balanced)} if match[1] == "balanced" else set[str]()
    for name, _, _ in options:
        if name not in known:
            hint = nearest(name, known) if known else ""
            raise InputError("policy", f"{match[1]} has no option {name!r:.60}", hint=hint)
    return Balanced(**{name: _value(text) for name, _, text in options})


_POLICY = re.compile(r"(\w+)(?:\((.*)\))?")


def _value(text: str) -> Any:
    try:
        return json.loads(text.lower())
    except ValueError:
        return text


_version = cache(version)  # It reads files.
