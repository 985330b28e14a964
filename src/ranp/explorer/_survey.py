"""The survey of a plan: everything that the report draws, as JSON, with plans over the whole range of budgets."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from ranp.allocation import WidthGrid, allocated_widths, channels_by_score
from ranp.arguments import checked
from ranp.budget import Budget
from ranp.costs import RESOURCES
from ranp.errors import PlanError
from ranp.explorer._survey_file import FORMAT, FORMAT_VERSION
from ranp.graph import ChannelGraph, Floats, Group, Ints, Layer, Rescale
from ranp.module_utils import call_model, preserve_rng
from ranp.plan import FORMAT_VERSION as PLAN_VERSION
from ranp.plan import Plan, make_plan, pack
from ranp.scores import Scores
from ranp.surgery import apply

BUDGETS = 41
MEASURED_STEPS, REPEATS = 9, 5
# Fields of a plan that are the same at every budget.
_SETTINGS = ("criterion", "importance", "resource_weight", "seed", "min_width", "round_to", "versions", "policy")


@checked
def survey(
    graph: ChannelGraph,
    plan: Plan,
    scores: Scores | None = None,
    *,
    verification: str = "",
    warnings: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Describe a plan and the plans of other budgets as JSON: the data of the report.

    Each step is the plan of one budget. Its kept channels follow from its widths: of every group, the first channels
    in the group's order. All other sizes are linear in the widths, so the report can write the plan of any step
    itself. The fields are described in `survey.schema.json`, in this package.

    Args:
        graph: The traced model.
        plan: The chosen plan.
        scores: The scores that the plan is based on; without them the plan is the only step.
        verification: `exact` or `structural`; empty if the plan was not verified.
        warnings: Warnings to show in the report.
        seconds: Duration of each step of pruning.

    Returns:
        The survey, which `write_survey` writes.

    Raises:
        PlanError: The plan was made for another model.

    Example:
        >>> import torch
        >>> import ranp
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Conv2d(8, 2, 1))
        >>> graph = ranp.trace(model, torch.zeros(1, 1, 8, 8))
        >>> scores = ranp.score(model, graph, [], criterion="uniform")
        >>> found = survey(graph, ranp.allocate(graph, scores, ranp.Budget(macs=0.5)), scores)
        >>> [step["widths"] for step in found["steps"]], found["chosen"]
        ([[2], [4], [8]], 1)
    """
    widths = {group.name: group.width for group in graph.groups}
    if plan.keep.keys() != widths.keys() or any(
        not kept or max(kept) >= widths[name] for name, kept in plan.keep.items()
    ):
        raise PlanError("survey", "the plan was made for another model: its groups of channels differ")
    order, steps, chosen = _steps(graph, plan, scores)
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        # The fields that the plans of all steps share, for the traced model: the plan may come from another task.
        "plan": {
            "format": "ranp-plan",
            "version": PLAN_VERSION,
            "shapes": {name: list(shape) for name, shape in graph.shapes.items()},
            "full_widths": {layer.name: layer.width for layer in graph.layers},
            "full_cost": graph.cost().known(),
            "has_cross_channel_norm": graph.has_cross_channel_norm,
            **{name: getattr(plan, name) for name in _SETTINGS},
            "versions": dict(plan.versions),
        },
        "axes": [_linear_form(row) for row in graph.costs.axes],
        "groups": [_group(group, order[group.name]) for group in graph.groups],
        "layers": [_layer(graph, layer) for layer in graph.layers],
        "settings": [asdict(entry) for entry in graph.attributes],
        "rescales": [_rescale(entry) for entry in graph.rescales],
        "allocations": [{**asdict(entry), "axes": list(entry.axes)} for entry in graph.costs.outputs],
        "nodes": [
            {"kind": node.kind, "name": node.name, "shape": list(node.shape), "sources": list(node.sources)}
            for node in graph.nodes
        ],
        "stages": [] if scores is None else [_stage(name, layers) for name, layers in scores.stages.items()],
        "batches": 0 if scores is None else scores.batches,
        "stability": [] if scores is None else [list(entry) for entry in scores.stability],
        "steps": steps,
        "chosen": chosen,
        "verification": verification,
        "warnings": list(warnings),
        "unprunable": [asdict(entry) for entry in graph.unprunable],
        "seconds": dict(seconds or {}),
    }


def _linear_form(row: Ints) -> dict[str, Any]:
    """A size as a linear function of the groups' widths."""
    return {"constant": int(row[-1]), "groups": [[int(group), int(row[group])] for group in np.flatnonzero(row[:-1])]}


def _rescale(entry: Rescale) -> dict[str, Any]:
    positions = pack(tuple(entry.positions.tolist()))
    return {
        "tensor": entry.parameter,
        "dim": entry.dim,
        "positions": positions,
        "axis": entry.axis,
        "exponent": entry.exponent,
    }


def _group(group: Group, order: Ints) -> dict[str, Any]:
    members = [
        {
            "tensor": member.parameter,
            "dim": member.dim,
            "positions": pack(tuple(member.positions.reshape(-1).tolist())),
            "reads": member.reads,
        }
        for member in group.members
    ]
    # In the order of preference, so that the runs are not ascending as those of a plan.
    return {"name": group.name, "width": group.width, "order": pack(tuple(order.tolist())), "members": members}


def _layer(graph: ChannelGraph, layer: Layer) -> dict[str, Any]:
    # Channels of one group have the same members, so a layer has the same number of neurons for each of them.
    groups, counts = np.unique(graph.group_of[layer.channels[layer.channels >= 0]], return_counts=True)
    row = np.zeros(len(graph.groups) + 1, dtype=np.int64)
    row[groups] = counts // graph.widths[groups]
    row[-1] = int((layer.channels < 0).sum())
    return {
        "name": layer.name,
        "width": _linear_form(row),
        "macs": layer.macs,
        "output_elements": layer.output_elements,
        "final": layer.final,
    }


def _stage(name: str, layers: Mapping[str, Floats]) -> dict[str, Any]:
    """Mean and quartiles of the scores in every layer."""
    return {
        "name": name,
        "layers": {
            layer: {"mean": float(values.mean()), "quartiles": np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()}
            for layer, values in layers.items()
        },
    }


# -- plans of other budgets --------------------------------------------------------------------------------------


def _steps(graph: ChannelGraph, plan: Plan, scores: Scores | None) -> tuple[dict[str, Ints], list[dict[str, Any]], int]:
    """Channels of each group in the order of preference; plans from narrow to wide; index of the chosen plan."""
    chosen = np.array([len(plan.keep[group.name]) for group in graph.groups], dtype=np.int64)
    others: dict[tuple[int, ...], Budget] = {}
    if scores is None:
        kept_first = ((group, plan.keep[group.name]) for group in graph.groups)
        order = {group.name: np.r_[kept, np.setdiff1d(range(group.width), kept)] for group, kept in kept_first}
    else:
        order = channels_by_score(graph, scores)
        grid = WidthGrid(graph, plan.min_width, plan.round_to)
        how: dict[str, Any] = {"policy": plan.policy, "min_width": plan.min_width, "round_to": plan.round_to}
        # Budgets that give the same widths are one step.
        others = {
            tuple(allocated_widths(graph, scores, budget, **how).tolist()): budget
            for budget in _budgets(graph, grid, plan.budget)
        }
    found = {**others, tuple(chosen.tolist()): plan.budget}
    steps = [
        {"budget": asdict(budget), "widths": list(widths), "cost": graph.cost(widths).known()}
        for widths, budget in sorted(found.items(), key=lambda item: sum(item[0]))
    ]
    return order, steps, next(index for index, step in enumerate(steps) if step["widths"] == chosen.tolist())


def _budgets(graph: ChannelGraph, grid: WidthGrid, chosen: Budget) -> Iterator[Budget]:
    """Fractions of a resource, evenly spaced on a logarithmic scale, rounded up to three digits.

    The resource is the time or the memory of training if the chosen budget limits it and it is known, otherwise the
    multiply-adds.
    """
    limited = {"macs", *(name for name, _ in chosen.given())}
    costs = ((each.limit, each.cost(graph, graph.widths), each.cost(graph, grid.narrowest)) for each in RESOURCES)
    name, full, least = next(found for found in costs if found[0] in limited and found[1] is not None)
    for fraction in np.geomspace((least or 1) / full if full else 1.0, 1.0, BUDGETS):
        step = 10.0 ** (np.floor(np.log10(fraction)) - 2)
        # Rounded up, because the smallest budget must be feasible.
        limit: Any = min(float(f"{np.ceil(fraction / step * (1 - 1e-12)) * step:.3g}"), 1.0)
        yield Budget(**{name: limit})


# -- measured times ----------------------------------------------------------------------------------------------


def with_forward_seconds(
    found: Mapping[str, Any], graph: ChannelGraph, plan: Plan, model: nn.Module, inputs: Any, *, seconds: float = 5.0
) -> dict[str, Any]:
    """Measure a forward pass at the chosen step and at others, evenly spaced, within a time limit.

    Args:
        found: The survey of this graph and plan.
        graph: The traced model.
        plan: The chosen plan.
        model: The full model; it is not changed.
        inputs: A tensor, a tuple (positional) or a dict (keyword arguments), on the model's device.
        seconds: No further step is measured once this much time has passed.

    Returns:
        The survey with `forward_seconds`, the median of a few passes in eval mode, at the steps that were measured.
    """
    begin = time.perf_counter()
    steps, settings = [dict(step) for step in found["steps"]], {name: getattr(plan, name) for name in _SETTINGS}
    spaced = np.linspace(0, len(steps) - 1, MEASURED_STEPS).round().astype(int).tolist()
    with preserve_rng(model):
        for number in dict.fromkeys([found["chosen"], *spaced]):
            if time.perf_counter() - begin > seconds:
                break
            widths = zip(found["groups"], steps[number]["widths"], strict=True)
            keep = {group["name"]: np.sort(_indices(group["order"])[:width]) for group, width in widths}
            small = apply(model, make_plan(graph, keep, budget=plan.budget, **settings)).eval()
            steps[number]["forward_seconds"] = _forward_seconds(small, inputs)
    return {**found, "steps": steps}


def _indices(text: str) -> Ints:
    """The indices of packed runs in any order."""
    ends = [run.partition("-") for run in text.split(",")]
    return np.concatenate([np.arange(int(first), int(last or first) + 1) for first, _, last in ends])


def _forward_seconds(model: nn.Module, inputs: Any) -> float:
    """Median of several passes after a warm-up pass."""
    on_cuda = any(parameter.is_cuda for parameter in model.parameters())
    found = []
    with torch.no_grad():
        for _ in range(1 + REPEATS):
            begin = time.perf_counter()
            call_model(model, inputs)
            if on_cuda:
                torch.cuda.synchronize()
            found.append(time.perf_counter() - begin)
    return statistics.median(found[1:])
