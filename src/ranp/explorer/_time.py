"""How long the networks of a survey's steps take, as measured."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ranp.graph import ChannelGraph
from ranp.module_utils import call_model, preserve_rng
from ranp.plan import Plan, make_plan
from ranp.surgery import apply

POINTS, REPEATS = 9, 5
_HOW = ("budget", "criterion", "importance", "resource_weight", "seed", "min_width", "round_to", "versions")


def timed(
    found: Mapping[str, Any], graph: ChannelGraph, plan: Plan, model: nn.Module, inputs: Any, *, seconds: float = 5.0
) -> dict[str, Any]:
    """Measure a forward pass of the plan and of other steps, evenly spaced, as far as time allows.

    Args:
        found: What `survey` found of this graph and plan.
        graph: The traced model.
        plan: What was decided.
        model: The full model; it is left as it is.
        inputs: A tensor, a tuple (positional) or a dict (keyword arguments), on the model's device.
        seconds: No further step is measured once so much time is spent.

    Returns:
        The survey with `forward_seconds`, the median of a few passes in eval mode, at the steps that were measured.
    """
    begin = time.perf_counter()
    steps = [dict(step) for step in found["steps"]]
    spaced = np.linspace(0, len(steps) - 1, POINTS).round().astype(int).tolist()
    with preserve_rng(model):
        for number in dict.fromkeys([found["chosen"], *spaced]):
            if time.perf_counter() - begin > seconds:
                break
            small = apply(model, _plan_of(found, graph, plan, steps[number]["widths"])).eval()
            steps[number]["forward_seconds"] = _forward_seconds(small, inputs)
    return {**found, "steps": steps}


def _plan_of(found: Mapping[str, Any], graph: ChannelGraph, plan: Plan, widths: list[int]) -> Plan:
    keep = {
        group["name"]: np.sort(_order(group["order"])[:width])
        for group, width in zip(found["groups"], widths, strict=True)
    }
    return make_plan(graph, keep, **{name: getattr(plan, name) for name in _HOW})


def _order(runs: str) -> np.ndarray[Any, Any]:
    """Indices of runs that need not ascend."""
    ends = [run.partition("-") for run in runs.split(",")]
    return np.concatenate([np.arange(int(first), int(last or first) + 1) for first, _, last in ends])


def _forward_seconds(model: nn.Module, inputs: Any) -> float:
    """Median of some passes, after one that warms up."""
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
