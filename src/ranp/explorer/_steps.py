"""Plans over the whole range of budgets."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from ranp.allocation import ThresholdSweep
from ranp.budget import Budget
from ranp.graph import ChannelGraph, Ints
from ranp.plan import Plan
from ranp.scores import Scores

COUNT = 41


def steps_of(
    graph: ChannelGraph, plan: Plan, scores: Scores | None
) -> tuple[dict[str, Ints], list[dict[str, Any]], int]:
    """The plans that a reader can choose from, narrowest first, the one that was decided among them.

    Returns:
        For each group its channels, those kept longest first; budget, widths and cost of every step; and the number of
        the step that is the plan.
    """
    chosen = np.array([len(plan.keep[group.name]) for group in graph.groups], dtype=np.int64)
    if scores is None:
        order = {group.name: _kept_first(plan.keep[group.name], group.width) for group in graph.groups}
        others: dict[tuple[int, ...], Budget] = {}
    else:
        sweep = ThresholdSweep(graph, scores, min_width=plan.min_width, round_to=plan.round_to)
        order = sweep.order
        # Budgets that give the same widths are one step.
        others = {tuple(sweep.widths(budget).tolist()): budget for budget in _budgets(graph, sweep)}
    found = {**others, tuple(chosen.tolist()): plan.budget}
    steps = [
        {"budget": asdict(budget), "widths": list(widths), "cost": asdict(graph.cost(widths))}
        for widths, budget in sorted(found.items(), key=lambda item: sum(item[0]))
    ]
    return order, steps, next(index for index, step in enumerate(steps) if step["widths"] == chosen.tolist())


def _budgets(graph: ChannelGraph, sweep: ThresholdSweep) -> Iterator[Budget]:
    """Fractions of the multiply-adds, evenly spaced on a logarithmic scale, each with three digits."""
    full = graph.cost().macs
    least = max(graph.cost(sweep.narrowest()).macs, 1) / full if full else 1.0
    for fraction in np.geomspace(least, 1.0, COUNT):
        step = 10.0 ** (np.floor(np.log10(fraction)) - 2)
        # Upwards: the least budget must be feasible.
        yield Budget(macs=min(float(f"{np.ceil(fraction / step * (1 - 1e-12)) * step:.3g}"), 1.0))


def _kept_first(keep: tuple[int, ...], width: int) -> Ints:
    gone = np.setdiff1d(np.arange(width), keep)
    return np.concatenate([np.array(keep, dtype=np.int64), gone])
