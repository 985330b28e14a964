"""`neuron` importance against finite differences of the loss under an explicit gate, in float64."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ranp
from helpers.networks import CASES, image
from helpers.oracles import CONVOLUTIONS, TRANSPOSED, in_double, randomize
from ranp.errors import InputError

STEP = 1e-5

# For each network the channels, by group, at the inputs of every layer that reads some: written down by hand.
READERS: dict[str, dict[str, list[tuple[str, int]]]] = {}


def channels(group: str, width: int, times: int = 1) -> list[tuple[str, int]]:
    """All channels of a group in order, each `times` times in a row."""
    return [(group, index) for index in range(width) for _ in range(times)]


READERS["plain"] = {"second": channels("first", 6), "head": channels("second", 4)}
READERS["residual"] = {
    "inner": channels("stem", 6),
    "outer": channels("inner", 5),
    "head": channels("stem", 6),
}
READERS["nested_concatenation"] = {
    "b": channels("a", 4),
    "c": channels("a", 4) + channels("b", 3),
    "head": channels("c", 5) + channels("a", 4) + channels("b", 3) + channels("a", 4),
}
READERS["transposed"] = {"up": channels("down", 4), "head": channels("up", 5)}
READERS["depthwise"] = {"project": channels("expand", 6), "head": channels("project", 4)}
READERS["linear_after_flatten"] = {"hidden": channels("body", 4, times=9), "head": channels("hidden", 6)}
READERS["grouped_in_few_blocks"] = {
    "grouped": channels("expand", 6) * 2,
    "head": channels("grouped", 4) * 2,
}
READERS["transposed_in_few_blocks"] = {"up": channels("down", 4) * 2, "head": channels("up", 3) * 2}
READERS["shared_layer"] = {"shared": channels("stem", 4), "head": channels("stem", 4)}
READERS["checkpoint_inside"] = {
    "inner": channels("stem", 4),
    "outer": channels("inner", 6),
    "head": channels("outer", 5),
}
READERS["squeeze_and_excite"] = {
    # The squeeze reads the channels' means, the head the gated channels: both go with the body.
    "squeeze": channels("body", 6),
    "excite": channels("squeeze", 3),
    "head": channels("body", 6),
}


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).mean()


def batches_for(model: nn.Module, inputs: Any, count: int = 2) -> list[tuple[Any, Tensor]]:
    """Batches of different inputs, in float64."""
    with torch.no_grad():
        shape = copy.deepcopy(model)(inputs).shape
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(inputs.shape, generator=generator, dtype=torch.float64),
            torch.randn(shape, generator=generator, dtype=torch.float64),
        )
        for _ in range(count)
    ]


class _Gated:
    """The mean loss over batches as a function of gates: on the inputs of layers, and on the outputs of one."""

    def __init__(self, model: nn.Module, readers: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        self.model = copy.deepcopy(model).train()
        self.readers = readers
        self.gates: dict[tuple[str, int], float] = {}
        for module in self.model.modules():
            if isinstance(module, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)) and module.bias is not None:
                module.bias.data.zero_()
        for name, found in readers.items():
            self.model.get_submodule(name).register_forward_pre_hook(self._on_inputs(found))
        self.model.get_submodule("head").register_forward_hook(self._on_outputs)

    def _vector(self, found: Sequence[tuple[str, int]], like: Tensor) -> Tensor:
        gates = torch.tensor([self.gates.get(channel, 1.0) for channel in found], dtype=torch.float64)
        return gates.reshape(-1, *(1,) * (like.ndim - 2))

    def _on_inputs(self, found: Sequence[tuple[str, int]]) -> Any:
        return lambda module, args: (args[0] * self._vector(found, args[0]),)

    def _on_outputs(self, module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out * self._vector([("head", index) for index in range(out.shape[1])], out)

    def slope(self, channel: tuple[str, int], batches: Sequence[tuple[Tensor, Tensor]]) -> float:
        """Absolute value of the central difference of the mean loss."""
        losses = []
        for gate in (1 + STEP, 1 - STEP):
            self.gates = {channel: gate}
            with torch.no_grad():
                losses.append(np.mean([float(squared(self.model(x), y)) for x, y in batches]))
        return abs(float(losses[0] - losses[1])) / (2 * STEP)


@pytest.mark.parametrize("name", READERS)
def test_scores_are_finite_differences(name: str) -> None:
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    graph = ranp.trace(model, inputs)
    batches = batches_for(model, inputs)
    scores = ranp.score(model, graph, batches, squared, criterion="vanilla", importance="neuron")
    gated = _Gated(model, READERS[name])
    expected = [gated.slope((group.name, index), batches) for group in graph.groups for index in range(group.width)]
    np.testing.assert_allclose(scores.channels, expected, rtol=1e-5, atol=1e-7 * max(expected))
    head = [gated.slope(("head", index), batches) for index in range(graph.layers[-1].width)]
    np.testing.assert_allclose(scores.stages["importance"]["head"], head, rtol=1e-5, atol=1e-7 * max(head))
    assert (scores.importance, scores.batches) == ("neuron", 2)


def test_layers_of_a_channel_share_its_importance() -> None:
    case = CASES["residual"]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    graph = ranp.trace(model, inputs)
    scores = ranp.score(model, graph, batches_for(model, inputs), squared, criterion="vanilla", importance="neuron")
    layers = scores.stages["importance"]
    assert np.array_equal(layers["stem"], layers["outer"])
    np.testing.assert_allclose(layers["stem"] * 2, scores.channels[:6])


def test_the_sign_survives_the_average_over_batches() -> None:
    """Gradients of opposite sign cancel between batches, unlike in `parameter` importance."""
    model = nn.Sequential(nn.Conv1d(1, 3, 1, bias=False), nn.Conv1d(3, 1, 1, bias=False)).double()
    graph = ranp.trace(model, torch.zeros(1, 1, 4).double())
    x = image(2, 1, 4)().double()

    def signed(outputs: Tensor, sign: float) -> Tensor:
        return sign * outputs.sum()

    batches = [(x, 1.0), (x, -1.0)]
    assert ranp.score(model, graph, batches, signed, criterion="vanilla").channels.all()
    with pytest.raises(InputError, match=r"^loss: its gradient is zero for every neuron that may be removed"):
        ranp.score(model, graph, batches, signed, criterion="vanilla", importance="neuron")


def test_outputs_may_be_changed_in_place() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1), nn.ReLU(inplace=True))
    graph = ranp.trace(model, image(2, 3, 5, 5)())
    batch = (image(2, 3, 5, 5)(), torch.ones(2, 2, 5, 5))
    scores = ranp.score(model, graph, [batch], F.mse_loss, criterion="vanilla", importance="neuron")
    assert scores.channels.max() > 0


@pytest.mark.parametrize(
    ("name", "layers"), [("dot_product_attention", ["query", "key"]), ("attention_by_einsum", ["query", "key"])]
)
def test_queries_and_keys_have_gates_on_their_outputs(name: str, layers: list[str]) -> None:
    """No weight reads them, so what counts is the effect of scaling the rows of their weights (biases are zero)."""
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    graph, batches = ranp.trace(model, inputs), batches_for(model, inputs)
    found = ranp.score(model, graph, batches, squared, criterion="vanilla", importance="neuron").stages["importance"]
    for layer in layers:
        gated = _Gated(model, {})
        weight = gated.model.get_submodule(layer).weight
        for index in range(len(weight)):
            losses = []
            for gate in (1 + STEP, 1 - STEP):
                full = weight[index].detach().clone()
                with torch.no_grad():
                    weight[index] *= gate
                    losses.append(np.mean([float(squared(gated.model(x), y)) for x, y in batches]))
                    weight[index] = full
            slope = abs(float(losses[0] - losses[1])) / (2 * STEP)
            assert found[layer][index] == pytest.approx(slope, rel=1e-4, abs=1e-6 * max(found[layer]))


@pytest.mark.parametrize("name", ["multihead_attention", "multihead_attention_to_other_features"])
def test_layers_inside_of_torchs_attention_have_gates(name: str) -> None:
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    graph, batches = ranp.trace(model, inputs), batches_for(model, inputs)
    scores = ranp.score(model, graph, batches, squared, criterion="vanilla", importance="neuron")
    assert (scores.channels > 0).all()
