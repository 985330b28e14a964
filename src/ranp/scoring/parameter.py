"""Importance by weights: |w * dL/dw|, the gradient of a mask on every weight."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from ranp.criteria import Reduction
from ranp.graph import ChannelGraph, Floats, Layer
from ranp.scoring._uses import LayerUses, Use, backward, rows


class ParameterImportance:
    """Importance of every neuron by its weights (Lee et al., SNIP, ICLR 2019; Xu et al., RANP, 3DV 2020).

    For every weight g = w * dL/dw, the gradient of a mask c = 1 on it; |g| is averaged over batches and reduced over
    the weights of a neuron. Gradients are used and freed as the backward pass computes them, so no second copy of the
    weights is held (except for `max`, which has to average every weight's |g| before it can compare them).

    The masks are on the weights that a layer's operator gets. Where these are computed from parameters (normalized,
    concatenated, a sum of products), w is the computed weight, not one of the parameters: what a neuron does for the
    loss does not depend on how its weights are computed.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph, reduce: Reduction) -> None:
        self.layers, self.reduce = graph.layers, reduce
        self.totals: dict[str, Tensor] = {}
        self._parameters = dict(model.named_parameters())
        self._by_weight = defaultdict[str, list[Layer]](list)
        for layer in graph.layers:
            if not layer.computed:
                self._by_weight[layer.weight].append(layer)
        computed = [layer for layer in graph.layers if layer.computed]
        self.trained = set(graph.shapes) if computed else set(self._by_weight)
        self._uses = LayerUses(model, computed, self._receive) if computed else None
        self._products: dict[Layer, Tensor] = {}  # of one batch
        self._sizes: dict[str, int] = {}  # how many weights each neuron of a layer has
        self._stack = ExitStack()

    def __enter__(self) -> None:
        for name, layers in self._by_weight.items():
            hook = self._parameters[name].register_post_accumulate_grad_hook(partial(self._collect, layers))
            self._stack.callback(hook.remove)
        if self._uses:
            self._stack.enter_context(self._uses)

    def __exit__(self, *exception: Any) -> None:
        self._stack.close()

    def _collect(self, layers: list[Layer], weight: Tensor) -> None:
        """Add what the weights of one parameter contribute in this batch, once its gradient is complete."""
        assert weight.grad is not None
        products = weight.detach() * weight.grad
        weight.grad = None
        for layer in layers:
            self._add(layer, rows(products, layer.out_dim, layer.blocks))

    def _receive(self, use: Use, _: Tensor | None, gradient: Tensor | None) -> None:
        if gradient is None:
            return
        products = rows(use.weight.detach() * gradient, use.out_dim, use.blocks) / len(use.layers)
        for layer in use.layers:
            # One mask is on all uses of a weight in a batch.
            known = self._products.get(layer)
            self._products[layer] = products if known is None else known + products

    def _add(self, layer: Layer, products: Tensor) -> None:
        found = products.abs() if self.reduce == "max" else products.abs().sum(1).double()
        self._sizes[layer.name] = products.shape[1]
        self.totals[layer.name] = self.totals[layer.name].add_(found) if layer.name in self.totals else found

    def check_forward(self) -> None:
        """Gradients of weights are always available."""

    def add(self, loss: Tensor) -> None:
        """Run the backward pass, and add the saliency of the weights to the sums."""
        backward(loss)
        for layer, products in self._products.items():
            self._add(layer, products)
        self._products.clear()
        if self._uses:
            self._uses.forget()

    def importance(self, totals: Mapping[str, Tensor], batches: int) -> dict[str, Floats]:
        """Average over batches, reduced over the weights of each neuron."""
        return {layer.name: self._of_layer(totals.get(layer.name), layer, batches) for layer in self.layers}

    def _of_layer(self, total: Tensor | None, layer: Layer, batches: int) -> Floats:
        if total is None:  # The loss does not depend on this layer.
            return np.zeros(layer.width)
        average = total.double() / batches
        if self.reduce == "max":
            average = average.amax(1)
        elif self.reduce == "mean":
            average = average / self._sizes[layer.name]
        found: Floats = average.cpu().numpy()
        return found
