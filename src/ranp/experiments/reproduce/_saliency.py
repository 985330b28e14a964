"""Saliency of single parameters, which SNIP needs, taken from backward passes that run anyway."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ranp.graph import ChannelGraph, Layer


@contextmanager
def recorded_saliency(model: nn.Module, graph: ChannelGraph) -> Iterator[dict[str, Tensor]]:
    """Add up |w * dL/dw| of every layer's weight over all backward passes within the context.

    Scoring runs those passes, so that one round over the data serves neurons and parameters. Holds one
    copy of the weights. Biases are zero while scoring, so theirs is zero and left out.

    Yields:
        Per layer a tensor of its weight's shape, from the first backward pass on.
    """
    weights = dict(model.named_parameters())
    totals: dict[str, Tensor] = {}

    def recorder(layer: Layer) -> Callable[[Tensor], None]:
        weight = weights[layer.weight]

        def record(gradient: Tensor) -> None:
            saliency = (weight.detach() * gradient.detach()).abs_()
            totals[layer.name] = totals[layer.name].add_(saliency) if layer.name in totals else saliency

        return record

    handles = [weights[layer.weight].register_hook(recorder(layer)) for layer in graph.layers]
    try:
        yield totals
    finally:
        for handle in handles:
            handle.remove()


def in_layer_order(totals: dict[str, Tensor], graph: ChannelGraph) -> dict[str, NDArray[np.float32]]:
    """Recorded saliency as arrays `(neurons, inputs, kernel positions)`, in the order of the forward pass."""
    arrays = {}
    for layer in graph.layers:
        by_neuron = torch.movedim(totals[layer.name], layer.out_dim, 0)
        arrays[layer.name] = by_neuron.reshape(*by_neuron.shape[:2], -1).float().cpu().numpy()
    return arrays
