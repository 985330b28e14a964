"""Tracing that trusts nothing: what the labels say is tried out by running pruned models without values."""

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ranp._garbage import uncollected
from ranp.errors import TraceError
from ranp.graph import ChannelGraph, Ints
from ranp.module_utils import all_modules
from ranp.surgery import resized
from ranp.tracing._culprits import culprits
from ranp.tracing._records import Note
from ranp.tracing._trace import Failure, Recorded, Traced, record, understand


@uncollected()
def trace(model: nn.Module, example_inputs: Any) -> ChannelGraph:
    """Understand a model: its channels, what ties them together, and what they cost.

    A copy of the model runs whose tensors have shapes but no values, so nothing is computed and no activation is
    allocated: once in eval mode, whose costs are counted, and, if its forward asks for the mode, once in training mode,
    for heads and branches that run there alone. A forward that writes channel numbers down (in a reshape, say) is found
    by running the pruned copy too: the channels in question stay whole, and the rest can be pruned.

    Args:
        model: Any module; it is left as it was.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        TraceError: The forward cannot be run on the example inputs.

    Example:
        >>> import torch
        >>> graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), torch.zeros(1, 3, 16, 16))
        >>> [(group.name, group.width) for group in graph.groups]
        [('0', 8)]
        >>> graph.cost([4]).macs
        22736
    """
    refuse_unready(model)
    recorded = record(model, example_inputs)
    return replace(_tried_out(recorded), untraced_training_mode=recorded.missed)


def _tried_out(recorded: Recorded) -> ChannelGraph:
    whole_blocks: set[int] = set()
    while True:
        traced = understand(recorded, whole_blocks)
        complaints = _complaints(traced)
        # A view that cannot split channels into a fixed number of blocks may split them into blocks of a fixed size.
        doubtful = complaints.keys() | set(np.flatnonzero(traced.graph.widths == 1).tolist())
        turned = {index for index, groups in enumerate(traced.splits) if groups & doubtful} - whole_blocks
        if not turned:
            return traced.freeze(_weights(traced.graph, complaints)) if complaints else traced.graph
        whole_blocks |= turned


def refuse_unready(model: nn.Module) -> None:
    """Refuse what is no eager module with parameters of known shape.

    Raises:
        TraceError: It is scripted, exported, lazy or no module at all.
    """
    modules = all_modules(model) if isinstance(model, nn.Module) else {"": model}
    for path, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule) or not isinstance(module, nn.Module):
            raise TraceError(
                path or "model",
                got=type(module).__name__,
                expected="an eager nn.Module",
                hint="prune the module before scripting or exporting it",
            )
        held = (*module._parameters.values(), *module._buffers.values())
        if any(tensor is not None and is_lazy(tensor) for tensor in held):
            raise TraceError(
                path or "model",
                got=f"{type(module).__name__}, whose parameters have no shape yet",
                expected="a model that has been initialized",
                hint="run the model on one batch first",
            )


def _complaints(traced: Traced) -> dict[int, Note]:
    """Groups that cannot be narrowed because the forward counts on their widths, each with what goes wrong."""
    graph = traced.graph

    @cache
    def attempt(groups: frozenset[int]) -> tuple[Failure, ...]:
        widths = _widths(graph, groups)
        with resized(traced.stage.modules, traced.stage.tensors, graph, widths):
            return traced.failures(widths)

    found: dict[int, Note] = {}
    groups = frozenset(range(len(graph.groups)))
    while groups and (failures := attempt(groups)):
        # What an operator returns where it should depend on one group alone: that group cannot be narrowed.
        alone = {min(held): failure.note for failure in failures if len(held := failure.groups & groups) == 1}
        found |= alone or culprits(groups, failures, attempt, traced.latest)
        groups = groups.difference(found)
    return found


def _widths(graph: ChannelGraph, groups: Collection[int]) -> Ints:
    """A quarter, half or three quarters of the width of some groups, in turn, and all of that of the others."""

    def width(index: int, full: int) -> int:
        if index not in groups:
            return full
        return max(1, min(full - 1, -(-full * (index % 3 + 1) // 4)))

    return np.array([width(index, group.width) for index, group in enumerate(graph.groups)], dtype=np.int64)


def _weights(graph: ChannelGraph, complaints: dict[int, Note]) -> dict[str, Note]:
    """Weights of the layers that produce the groups in question."""
    found = {}
    for group, complaint in complaints.items():
        start, stop = graph.offsets[group : group + 2]
        for layer in graph.layers:
            if ((layer.channels >= start) & (layer.channels < stop)).any():
                found[layer.weight] = complaint
    return found
