"""Putting a survey together from what pruning has at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ranp.errors import PlanError
from ranp.explorer._steps import steps_of
from ranp.explorer._survey_file import FORMAT, FORMAT_VERSION
from ranp.graph import ChannelGraph, Floats, Group, Ints, Layer, Member
from ranp.plan import FORMAT_VERSION as PLAN_VERSION
from ranp.plan import Plan, pack
from ranp.scores import Scores


def survey(
    graph: ChannelGraph,
    plan: Plan,
    scores: Scores | None = None,
    *,
    verification: str = "",
    warnings: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Everything that a reader of a plan may want to know, as JSON, with plans over the whole range of budgets.

    The kept channels of any step follow from its widths: of every group the first so many in the group's order. All
    other sizes are linear in the widths, too, so that a page can spell out the plan of any step by itself. The fields
    are described in `survey.schema.json`, beside this module.

    Args:
        graph: The traced model.
        plan: What was decided.
        scores: What that rests on; without them the plan is the only step.
        verification: `exact` or `structural`, if it was verified.
        warnings: What a user should know.
        seconds: Duration of each step of pruning.

    Returns:
        The survey, which `write_survey` writes.

    Raises:
        PlanError: The plan is one for another model.

    Example:
        >>> import torch
        >>> import ranp
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Conv2d(8, 2, 1))
        >>> graph = ranp.trace(model, torch.zeros(1, 1, 8, 8))
        >>> scores = ranp.score(model, graph, [], criterion="uniform")
        >>> found = survey(graph, ranp.allocate(graph, scores, ranp.Budget(macs=0.5)), scores)
        >>> [step["widths"] for step in found["steps"]], found["chosen"]
        ([[1], [2], [3], [4], [5], [6], [7], [8]], 3)
    """
    widths = {group.name: group.width for group in graph.groups}
    if plan.keep.keys() != widths.keys() or any(
        not kept or max(kept) >= widths[name] for name, kept in plan.keep.items()
    ):
        raise PlanError("survey", got="a plan with other groups of channels", expected="a plan for the traced model")
    order, steps, chosen = steps_of(graph, plan, scores)
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "plan": _whole(graph, plan),
        "axes": [_form(row) for row in graph.costs.axes],
        "groups": [_group(group, order[group.name]) for group in graph.groups],
        "layers": [_layer(graph, layer) for layer in graph.layers],
        "settings": [asdict(entry) for entry in graph.attributes],
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


def _whole(graph: ChannelGraph, plan: Plan) -> dict[str, Any]:
    """What the plan files of all steps have in common; a plan taken over from another task is told for this one."""
    return {
        "format": "ranp-plan",
        "version": PLAN_VERSION,
        "shapes": {name: list(shape) for name, shape in graph.shapes.items()},
        "full_widths": {layer.name: layer.width for layer in graph.layers},
        "full_cost": asdict(graph.cost()),
        "has_cross_channel_norm": graph.has_cross_channel_norm,
        "criterion": plan.criterion,
        "importance": plan.importance,
        "resource_weight": plan.resource_weight,
        "seed": plan.seed,
        "min_width": plan.min_width,
        "round_to": plan.round_to,
        "versions": dict(plan.versions),
    }


def _form(row: Ints) -> dict[str, Any]:
    """A linear form over the widths of the groups."""
    groups = [[int(group), int(row[group])] for group in np.flatnonzero(row[:-1])]
    return {"constant": int(row[-1]), "groups": groups}


def _group(group: Group, order: Ints) -> dict[str, Any]:
    return {
        "name": group.name,
        "width": group.width,
        "order": runs(order),
        "members": [_member(member) for member in group.members],
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "tensor": member.parameter,
        "dim": member.dim,
        "positions": runs(member.positions.reshape(-1)),
        "reads": member.reads,
    }


def _layer(graph: ChannelGraph, layer: Layer) -> dict[str, Any]:
    # Channels of one group have the same members, so a layer has as many neurons of each of them.
    groups, counts = np.unique(graph.group_of[layer.channels[layer.channels >= 0]], return_counts=True)
    row = np.zeros(len(graph.groups) + 1, dtype=np.int64)
    row[groups] = counts // graph.widths[groups]
    row[-1] = int((layer.channels < 0).sum())
    return {
        "name": layer.name,
        "width": _form(row),
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


def runs(indices: Ints) -> str:
    """Indices in any order, as runs of consecutive ones; ascending ones read as `ranp.plan.pack` writes them.

    Example:
        >>> runs(np.array([4, 5, 6, 0, 1, 9]))
        '4-6,0-1,9'
    """
    return pack(tuple(indices.tolist()))
