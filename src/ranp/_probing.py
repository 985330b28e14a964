"""Tracing that trusts nothing: what the labels say is tried out by running pruned models under fake tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from ranp.budget import Budget
from ranp.graph import ChannelGraph, Ints
from ranp.plan import make_plan
from ranp.surgery import apply
from ranp.tracing import Note, Traced, trace_once

# The fields of a plan that only serves to try a model out.
_UNDECIDED: dict[str, Any] = {
    "budget": Budget(macs=1.0),
    "criterion": "",
    "importance": "",
    "lam": 0.0,
    "seed": 0,
    "min_width": 1,
    "round_to": 1,
    "versions": {},
}


def trace(model: nn.Module, example_inputs: Any) -> ChannelGraph:
    """Understand a model: its channels, what ties them together, and what they cost.

    The model runs under fake tensors, so nothing is computed and no activation is allocated. A forward that writes
    channel numbers down (in a reshape, say) is found by running the pruned model under fake tensors too: the channels
    in question stay whole, and the rest can be pruned.

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
    frozen: dict[str, Note] = {}
    whole_blocks: set[int] = set()
    while True:
        traced = trace_once(model, example_inputs, frozen, whole_blocks)
        complaints = _complaints(model, example_inputs, traced)
        # A view that cannot split channels into a fixed number of blocks may split them into blocks of a fixed size.
        doubtful = complaints.keys() | set(np.flatnonzero(traced.graph.widths == 1).tolist())
        turned = {index for index, groups in enumerate(traced.splits) if groups & doubtful} - whole_blocks
        if turned:
            whole_blocks |= turned
        elif complaints:
            frozen |= _weights(traced.graph, complaints)
        else:
            return traced.graph


def _complaints(model: nn.Module, example_inputs: Any, traced: Traced) -> dict[int, Note]:
    """Groups that cannot be narrowed because the forward counts on their widths, each with what goes wrong."""
    graph = traced.graph

    def complain(groups: list[int]) -> Note | None:
        keep = _narrow(graph, set(groups))
        widths = np.array([len(kept) for kept in keep.values()], dtype=np.int64)
        return traced.mismatch(apply(model, make_plan(graph, keep, **_UNDECIDED)), example_inputs, widths)

    failing = _failing(list(range(len(graph.groups))), complain)
    together = Note("", "forward", "works only together with other channels")
    return {group: complain([group]) or together for group in failing}


def _narrow(graph: ChannelGraph, groups: set[int]) -> dict[str, Ints]:
    """Keep the first quarter, half or three quarters of some groups, in turn, and all of the others."""

    def width(index: int, full: int) -> int:
        if index not in groups:
            return full
        return max(1, min(full - 1, -(-full * (index % 3 + 1) // 4)))

    return {group.name: np.arange(width(index, group.width)) for index, group in enumerate(graph.groups)}


def _failing(groups: list[int], complain: Callable[[list[int]], Note | None]) -> list[int]:
    """The groups that cannot be narrowed, by halving the candidates."""
    if not groups or not complain(groups):
        return []
    if len(groups) == 1:
        return groups
    middle = len(groups) // 2
    found = _failing(groups[:middle], complain) + _failing(groups[middle:], complain)
    # Halves that work alone but not together depend on each other: one of them has to stay whole.
    return found or groups[middle:]


def _weights(graph: ChannelGraph, complaints: dict[int, Note]) -> dict[str, Note]:
    """Weights of the layers that produce the groups in question."""
    found = {}
    for group, complaint in complaints.items():
        start, stop = graph.offsets[group : group + 2]
        for layer in graph.layers:
            if ((layer.channels >= start) & (layer.channels < stop)).any():
                found[layer.weight] = complaint
    return found
