"""Importance by gates: the gradient of a gate on every channel, without weight gradients."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from ranp.errors import InputError
from ranp.graph import ChannelGraph, Floats, Layer
from ranp.scoring._uses import LayerUses, Use, backward, rows


class NeuronImportance:
    """Importance of every neuron by a gate on its channel (Xu et al., RANP, 3DV 2020).

    With x = c * phi(h), s = |dL/dc| at c = 1, summed over batch and space and averaged over batches before the absolute
    value is taken. The gates are on the inputs of all layers that read the channel, hence after its norm and
    activation; the gradients of one channel's gates add up. At c = 1 that of a gate is the sum of x * dL/dx, so that no
    gate is needed, nor the gradient of a weight.

    Layers that produce a channel together share its importance equally. Neurons that no layer reads (the model's
    outputs, queries and keys of attention) have their gates on the outputs of their layer, which add up to the sum of
    w * dL/dw over their weights.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self.graph = graph
        self.totals: dict[str, Tensor] = {}
        self._reading = {member.parameter for group in graph.groups for member in group.members if member.reads}
        # What holds removable channels must need a gradient, but a weight passes that of its inputs on.
        self._read = np.zeros(len(graph.group_of) + 1, dtype=bool)  # the last for number -1: always kept
        for layer in graph.layers:
            self._read[layer.inputs[layer.inputs >= 0]] = True
        needed = {layer.weight for layer in graph.layers if not _reads(layer) or not self._read[layer.channels].all()}
        self.trained = (set(graph.shapes) - {layer.weight for layer in graph.layers}) | needed
        self._uses = LayerUses(model, graph.layers, self._receive)

    def __enter__(self) -> None:
        self._uses.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._uses.__exit__(*exception)

    def check_forward(self) -> None:
        """Refuse a model with a weight that reads channels but was not seen with its input."""
        if missed := sorted(self._reading - self._uses.seen):
            problem = "it reads channels, but in no layer whose weight is computed from parameters alone"
            raise InputError(f"importance='neuron' at {missed[0]}", problem, hint="use importance='parameter'")

    def add(self, loss: Tensor) -> None:
        """Run the backward pass, and add the gradients of the gates to the sums."""
        backward(loss)
        self._uses.forget()

    def _receive(self, use: Use, source: Tensor | None, weight: Tensor | None) -> None:
        if use.source is not None and source is not None:
            products = (use.source().detach() * source).movedim(use.channel_dim, 0)
            self._add("inputs", use, products.flatten(1).sum(1))
        if weight is not None:
            self._add("outputs", use, rows(use.weight.detach() * weight, use.out_dim, use.blocks).sum(1))

    def _add(self, what: str, use: Use, gradients: Tensor) -> None:
        for layer in use.layers:
            key, found = f"{what} of {layer.name}", gradients.double() / len(use.layers)
            self.totals[key] = self.totals[key] + found if key in self.totals else found

    def importance(self, totals: Mapping[str, Tensor], batches: int) -> dict[str, Floats]:
        """Absolute value of the average over batches, for the neurons of each layer."""
        signed = {name: total.cpu().numpy() / batches for name, total in totals.items()}
        channels = np.zeros(int(self.graph.offsets[-1]))
        for layer in self.graph.layers:
            read, found = layer.inputs >= 0, signed.get(f"inputs of {layer.name}")
            if found is not None:
                np.add.at(channels, layer.inputs[read], found[read])
        return {
            layer.name: self._of_layer(layer, np.abs(channels), signed.get(f"outputs of {layer.name}"))
            for layer in self.graph.layers
        }

    def _of_layer(self, layer: Layer, channels: Floats, outputs: Floats | None) -> Floats:
        read = self._read[layer.channels]
        found = np.zeros(layer.width)
        inside = layer.channels[read]
        found[read] = channels[inside] / self.graph.neurons[inside]
        if outputs is not None:
            found[~read] = np.abs(outputs)[~read]
        return found


def _reads(layer: Layer) -> bool:
    return bool((layer.inputs >= 0).any())
