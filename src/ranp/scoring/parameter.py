"""Importance by weights: |w * dL/dw|, the gradient of a mask on every weight."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ranp.criteria import Reduction
from ranp.graph import ChannelGraph, Floats, Layer


class ParameterImportance:
    """Importance of every neuron by its weights (Lee et al., SNIP, ICLR 2019; Xu et al., RANP, 3DV 2020).

    For every weight g = w * dL/dw, the gradient of a mask c = 1 on it; |g| is averaged over batches and reduced over
    the weights of a neuron. Gradients are used and freed as the backward pass computes them, so no second copy of the
    weights is held (except for `max`, which has to average every weight's |g| before it can compare them).

    Args:
        model: The model.
        graph: Its graph.
        reduce: How the importance of weights becomes that of their neuron.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, reduce: Reduction) -> None:
        self.layers, self.reduce = graph.layers, reduce
        self.totals: dict[str, Tensor] = {}
        self._parameters = dict(model.named_parameters())
        self._by_weight = {layer.weight: layer for layer in graph.layers}
        self.trained = set(self._by_weight)

    def __enter__(self) -> None:
        with ExitStack() as hooks:
            for name, layer in self._by_weight.items():
                hook = self._parameters[name].register_post_accumulate_grad_hook(self._collector(layer))
                hooks.callback(hook.remove)
            self._hooks = hooks.pop_all()

    def __exit__(self, *exception: Any) -> None:
        self._hooks.close()

    def _collector(self, layer: Layer) -> Callable[[Tensor], None]:
        def collect(weight: Tensor) -> None:
            assert weight.grad is not None
            saliency = (weight.detach() * weight.grad).abs_()
            weight.grad = None
            found = saliency if self.reduce == "max" else per_neuron(saliency, layer, "sum").double()
            self.totals[layer.name] = self.totals[layer.name].add_(found) if layer.name in self.totals else found

        return collect

    def check_forward(self) -> None:
        """Gradients of weights are always available."""

    def add(self, loss: Tensor) -> None:
        """Run the backward pass; hooks on the weights add their saliency to the sums."""
        loss.backward()

    def importance(self, totals: Mapping[str, Tensor], batches: int) -> dict[str, Floats]:
        """Average over batches, reduced over the weights of each neuron."""
        return {layer.name: self._of_layer(totals.get(layer.name), layer, batches) for layer in self.layers}

    def _of_layer(self, total: Tensor | None, layer: Layer, batches: int) -> Floats:
        if total is None:  # The loss does not depend on this layer.
            return torch.zeros(layer.width, dtype=torch.float64).numpy()
        average = total.double() / batches
        if self.reduce == "max":
            average = per_neuron(average, layer, "max")
        elif self.reduce == "mean":
            average = average / (self._parameters[layer.weight].numel() / layer.width)
        found: Floats = average.cpu().numpy()
        return found


def per_neuron(values: Tensor, layer: Layer, reduce: Reduction) -> Tensor:
    """Reduce a tensor of a weight's shape to one number for each neuron, of shape (neurons,).

    Example:
        >>> import numpy as np
        >>> layer = Layer("up", "up.weight", None, 1, 1, 0, 0, np.arange(3), False)
        >>> per_neuron(torch.ones(2, 3, 5), layer, "sum")
        tensor([10., 10., 10.])
    """
    if layer.out_dim == 0:
        table = values.flatten(1)
    else:
        # (in, out / blocks, ...): the rows of a block belong to the outputs of that block.
        split = values.reshape(layer.blocks, -1, *values.shape[1:])
        table = split.transpose(1, 2).flatten(0, 1).flatten(1)
    if reduce == "max":
        return table.amax(1)
    return table.mean(1) if reduce == "mean" else table.sum(1)
