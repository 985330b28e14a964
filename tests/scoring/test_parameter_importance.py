"""`parameter` importance against gradients of explicit masks on the weights."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import ranp
from helpers.networks import CASES
from helpers.oracles import CONVOLUTIONS, TRANSPOSED, in_double, randomize

NAMES = [
    "plain",
    "residual",
    "nested_concatenation",
    "transposed",
    "transposed_in_few_blocks",
    "depthwise",
    "shared_layer",
    "linear_after_flatten",
    "instance_norm_affine",
]


def squared(outputs: Tensor, targets: float) -> Tensor:
    return ((outputs - targets) ** 2).mean()


def masked_saliency(model: nn.Module, batches: list[tuple[Tensor, float]]) -> dict[str, Any]:
    """|dL/dc| at c = 1 of a mask c on every weight, averaged over batches, by layer, as (neurons, weights)."""
    model = copy.deepcopy(model).train()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED))
    }
    for module in layers.values():
        if module.bias is not None:
            module.bias.data.zero_()
    masks = {name: torch.ones_like(module.weight, requires_grad=True) for name, module in layers.items()}
    totals = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for inputs, targets in batches:
        weights = {f"{name}.weight": layers[name].weight.detach() * mask for name, mask in masks.items()}
        loss = squared(functional_call(model, weights, (inputs,)), targets)
        for total, gradient in zip(totals.values(), torch.autograd.grad(loss, list(masks.values())), strict=True):
            total += gradient.abs() / len(batches)
    return {name: _by_neuron(layers[name], total).numpy() for name, total in totals.items()}


def _by_neuron(layer: nn.Module, values: Tensor) -> Tensor:
    if not isinstance(layer, TRANSPOSED):
        return values.flatten(1)
    # A transposed weight is (in, out / blocks, ...), and the inputs of a block make the outputs of that block.
    rows = []
    per_block = values.shape[0] // layer.groups
    for block in range(layer.groups):
        part = values[block * per_block : (block + 1) * per_block]
        rows += [part[:, out].flatten() for out in range(part.shape[1])]
    return torch.stack(rows)


def prepare(name: str) -> tuple[nn.Module, Any, list[tuple[Tensor, float]]]:
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    return model, ranp.trace(model, inputs), [(inputs, 0.5), (inputs.flip(0) * 2, -3.0), (inputs - 1, 1.0)]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_gradients_of_masks(name: str, reduce: str) -> None:
    model, graph, batches = prepare(name)
    scores = ranp.score(model, graph, batches, squared, criterion="vanilla", reduce=reduce)
    saliency = masked_saliency(model, batches)
    expected = {layer: getattr(np, reduce)(values, axis=1) for layer, values in saliency.items()}
    assert scores.stages["importance"].keys() == expected.keys()
    for layer, values in expected.items():
        np.testing.assert_allclose(scores.stages["importance"][layer], values, rtol=1e-9, atol=1e-15)
    assert (scores.importance, scores.batches) == ("parameter", 3)


def test_coupled_channels_add_up() -> None:
    model, graph, batches = prepare("residual")
    scores = ranp.score(model, graph, batches, squared, criterion="vanilla")
    layers = {name: values.sum(1) for name, values in masked_saliency(model, batches).items()}
    expected = np.concatenate([layers["stem"] + layers["outer"], layers["inner"]])
    np.testing.assert_allclose(scores.channels, expected)


def test_blocks_add_up() -> None:
    # Of 8 inputs in two blocks, the neurons 0 and 4, 1 and 5, ... go together; of 6 outputs 0 and 3, ...
    model, graph, batches = prepare("transposed_in_few_blocks")
    scores = ranp.score(model, graph, batches, squared, criterion="vanilla")
    layers = {name: values.sum(1) for name, values in masked_saliency(model, batches).items()}
    down, up = layers["down"], layers["up"]
    np.testing.assert_allclose(scores.channels, np.concatenate([down[:4] + down[4:], up[:3] + up[3:]]))


def test_snip_keeps_a_channel_for_its_largest_weight() -> None:
    model, graph, batches = prepare("residual")
    scores = ranp.score(model, graph, batches, squared, criterion="snip", importance="neuron")
    layers = {name: values.max(1) for name, values in masked_saliency(model, batches).items()}
    expected = np.concatenate([np.maximum(layers["stem"], layers["outer"]), layers["inner"]])
    np.testing.assert_allclose(scores.channels, expected)
    assert scores.importance == "parameter"


def test_a_layer_without_influence_scores_zero() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv1d(3, 2, 1)).double()
    x = torch.randn(2, 2, 4, dtype=torch.float64)
    graph = ranp.trace(model, x)
    scores = ranp.score(
        model, graph, [x], step=lambda model, batch: model[0](batch).square().mean(), criterion="vanilla"
    )
    assert scores.stages["importance"]["1"].tolist() == [0.0, 0.0]
    assert (scores.channels > 0).all()
