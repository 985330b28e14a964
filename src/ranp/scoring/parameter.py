"""Importance by weights: |w * dL/dw|, the gradient of a mask on every weight."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from ranp.criteria import Reduction
from ranp.graph import ChannelGraph, Floats, Layer


class ParameterImportance:
    """Importance of every neuron by its weights (Lee et al., SNIP, ICLR 2019; Xu et al., RANP, 3DV 2020).

    For every weight g = w * dL/dw, the gradient of a mask c = 1 on it; |g| is averaged over batches and reduced over
    the weights of a neuron. Gradients are used and freed as the backward pass computes them, so no second copy of the
    weights is held (except for `max`, which has to average every weight's |g| before it can compare them).
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, reduce: Reduction) -> None:
        self.layers, self.reduce = graph.layers, reduce
        self.totals: dict[str, Tensor] = {}
        self._parameters = dict(model.named_parameters())
        self._by_weight = {layer.weight: layer for layer in graph.layers}
        self.trained = set(self._by_weight)

    def __enter__(self) -> None:
        self._hooks = [
            self._parameters[name].register_post_accumulate_grad_hook(partial(self._collect, layer))
            for name, layer in self._by_weight.items()
        ]

    def __exit__(self, *exception: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    def _collect(self, layer: Layer, weight: Tensor) -> None:
        assert weight.grad is not None
        saliency = (weight.detach() * weight.grad).abs_()
        weight.grad = None
        found = saliency if self.reduce == "max" else rows(saliency, layer).sum(1).double()
        self.totals[layer.name] = self.totals[layer.name].add_(found) if layer.name in self.totals else found

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
            return np.zeros(layer.width)
        average = total.double() / batches
        if self.reduce == "max":
            average = rows(average, layer).amax(1)
        elif self.reduce == "mean":
            average = average / (self._parameters[layer.weight].numel() / layer.width)
        found: Floats = average.cpu().numpy()
        return found


def rows(values: Tensor, layer: Layer) -> Tensor:
    """A tensor of a weight's shape as a table with a row for each neuron.

    Example:
        >>> layer = Layer("up", "up.weight", None, 1, 1, 0, 0, np.arange(3), False)
        >>> rows(Tensor(2, 3, 5), layer).shape
        torch.Size([3, 10])
    """
    if layer.out_dim == 0:
        return values.flatten(1)
    # (in, out / blocks, ...): the rows of a block belong to the outputs of that block.
    split = values.reshape(layer.blocks, -1, *values.shape[1:])
    return split.transpose(1, 2).flatten(0, 1).flatten(1)
