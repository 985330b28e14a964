"""The `parameter` reading of importance: |w * dL/dw|, the gradient of a mask on every weight."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ranp.graph import ChannelGraph, Floats, Layer
from ranp.scoring._loss import Progress, Step, losses, prepared
from ranp.scoring._stability import Ranking
from ranp.scoring._together import averaged

Reduction: TypeAlias = Literal["sum", "mean", "max"]


def parameter_importance(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[Any],
    step: Step,
    reduce: Reduction,
    *,
    seed: int,
    progress: Progress | None,
    ranking: Ranking,
) -> tuple[dict[str, Floats], int]:
    """Importance of every neuron by its weights (Lee et al., SNIP, ICLR 2019; Xu et al., RANP, 3DV 2020).

    For every weight g = w * dL/dw, the gradient of a mask c = 1 on it; |g| is averaged over batches and reduced over
    the weights of a neuron. Gradients are used and freed as backward makes them, so no second copy of the weights is
    held (except for `max`, which has to average every weight's |g| before it can compare them).

    Returns:
        For each layer an array of shape (neurons,), and the number of batches.
    """
    parameters = dict(model.named_parameters())
    layers = {layer.weight: layer for layer in graph.layers}
    totals: dict[str, Tensor] = {}

    def collector(layer: Layer) -> Callable[[Tensor], None]:
        def collect(weight: Tensor) -> None:
            assert weight.grad is not None
            saliency = (weight.detach() * weight.grad).abs_()
            weight.grad = None
            found = saliency if reduce == "max" else per_neuron(saliency, layer, "sum").double()
            totals[layer.name] = totals[layer.name].add_(found) if layer.name in totals else found

        return collect

    def average(added: Mapping[str, Tensor], seen: int) -> dict[str, Floats]:
        return {
            layer.name: _finish(added.get(layer.name), parameters[layer.weight], layer, reduce, seen)
            for layer in graph.layers
        }

    with prepared(model, graph, set(layers), seed):
        handles = [
            parameters[name].register_post_accumulate_grad_hook(collector(layer)) for name, layer in layers.items()
        ]
        try:
            return averaged(map(Tensor.backward, losses(model, batches, step, progress)), totals, average, ranking)
        finally:
            for handle in handles:
                handle.remove()


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


def _finish(total: Tensor | None, weight: Tensor, layer: Layer, reduce: Reduction, batches: int) -> Floats:
    if total is None:  # the loss does not depend on this layer
        return torch.zeros(layer.width, dtype=torch.float64).numpy()
    average = total.double() / batches
    if reduce == "max":
        average = per_neuron(average, layer, "max")
    elif reduce == "mean":
        average = average / (weight.numel() / layer.width)
    found: Floats = average.cpu().numpy()
    return found
