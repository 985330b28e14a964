"""Layers whose weights are computed, transposed or cut into parts, against gates and masks that are written out."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import ranp
from helpers.networks import Net, image
from helpers.oracles import in_double, randomize
from ranp.errors import InputError

STEP = 1e-5


@dataclass
class Probe:
    """Gates on channels where they are read, on outputs, and masks on weights; all of them ones unless they are set."""

    channels: Tensor | None = None
    outputs: Tensor | None = None
    masks: dict[str, Tensor] | None = None

    def read(self, x: Tensor, numbers: Sequence[int], dim: int = 1) -> Tensor:
        """What a layer reads: the channels with these numbers along a dimension."""
        return x if self.channels is None else x * along(self.channels[list(numbers)], dim, x.ndim)

    def mask(self, layer: str, weight: Tensor) -> Tensor:
        if self.masks is None:
            return weight
        return weight * self.masks.setdefault(layer, torch.ones_like(weight, requires_grad=True))

    def out(self, y: Tensor, dim: int = 1) -> Tensor:
        return y if self.outputs is None else y * along(self.outputs, dim, y.ndim)


def along(vector: Tensor, dim: int, rank: int) -> Tensor:
    return vector.reshape([-1 if d == dim % rank else 1 for d in range(rank)])


@dataclass(frozen=True)
class Example:
    """A network, the dimension of rows of each of its masked weights, and the layer that makes its outputs."""

    build: Callable[[], nn.Module]
    masked: dict[str, int]
    last: str = "head"
    inputs: Callable[[], Tensor] = field(default=image(4, 3, 7, 7))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def net(run: Callable[[Any, Tensor], Tensor], **parts: Any) -> nn.Module:
    return Net(run, probe=Probe(), **parts)


def concatenated() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.conv2d(x, net.probe.mask("b", torch.cat([net.a, net.b]))).relu()
        return net.probe.out(net.head(net.probe.read(y, range(8))))

    return net(run, a=weight(3, 3, 3, 3), b=weight(5, 3, 3, 3), head=nn.Conv2d(8, 2, 1))


def summed() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.probe.read(net.stem(x).relu(), range(6))
        y = F.conv2d(y, net.probe.mask("a", net.a.abs() + 0.1 + net.b)).relu()
        return net.probe.out(net.head(net.probe.read(y, range(6, 11))))

    return net(run, stem=nn.Conv2d(3, 6, 1), a=weight(5, 6, 3, 3), b=weight(5, 6, 1, 1), head=nn.Conv2d(5, 2, 1))


def low_rank() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.probe.read(net.stem(x).relu(), range(6), dim=-1)
        y = F.linear(y, net.probe.mask("w", net.w + net.a @ net.probe.mask("b", net.b)))
        return net.probe.out(net.head(net.probe.read(y.relu(), range(6, 11), dim=-1)), dim=-1)

    parts = {"w": weight(5, 6), "a": weight(5, 2), "b": weight(2, 6)}
    return net(run, stem=nn.Linear(3, 6), head=nn.Linear(5, 2), **parts)


def einsum() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.probe.read(net.stem(x).relu(), range(6))
        y = torch.einsum("bihw,oi->bohw", y, net.probe.mask("a", net.a)).relu()
        return net.probe.out(net.head(net.probe.read(y, range(6, 11))))

    return net(run, stem=nn.Conv2d(3, 6, 1), a=weight(5, 6), head=nn.Conv2d(5, 2, 1))


def bias_first() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.probe.read(net.stem(x).relu(), range(4), dim=-1)
        return net.probe.out(torch.addmm(net.bias, y, net.probe.mask("weight", net.weight).t()), dim=-1)

    return net(run, stem=nn.Linear(3, 4), weight=weight(2, 4), bias=weight(2))


def repeated() -> nn.Module:
    # The channels of a weight and of its negative go together.
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.conv2d(x, net.probe.mask("a", torch.cat([net.a, -net.a]))).relu()
        return net.probe.out(net.head(net.probe.read(y, [*range(4), *range(4)])))

    return net(run, a=weight(4, 3, 3, 3), head=nn.Conv2d(8, 2, 1))


def transposed(inner: int) -> Callable[[], nn.Module]:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.probe.read(net.first(x).relu(), range(6), dim=-1)
        shared = net.probe.mask("second", net.second.weight)
        y = net.probe.read(F.linear(y, shared).relu(), range(6, 6 + inner), dim=-1)
        y = net.probe.read(F.linear(y, shared.t()).relu(), range(6), dim=-1)
        return net.probe.out(net.head(y), dim=-1)

    return lambda: net(run, first=nn.Linear(3, 6), second=nn.Linear(6, inner, bias=False), head=nn.Linear(6, 2))


def autoencoder() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        shared = net.probe.mask("code", net.code.weight)
        y = net.probe.read(F.linear(x, shared).relu(), range(4), dim=-1)
        return net.probe.out(y @ shared, dim=-1)

    return net(run, code=nn.Linear(3, 4, bias=False))


def normalized() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.conv2d(net.probe.read(net.stem(x).relu(), range(6)), net.probe.mask("second", net.second.weight)).relu()
        return net.probe.out(net.head(net.probe.read(y, range(6, 11))))

    second = parametrizations.weight_norm(nn.Conv2d(6, 5, 3, bias=False))
    return net(run, stem=nn.Conv2d(3, 6, 1), second=second, head=nn.Conv2d(5, 2, 1))


def computed_twice() -> nn.Module:
    # Two uses of one weight, which is computed for each of them.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.stem(x)
        for _ in range(2):
            y = net.probe.read(y.relu(), range(4))
            y = F.conv2d(y, net.probe.mask("a", net.a * 0.5), padding=1)
        return net.probe.out(net.head(net.probe.read(y.relu(), range(4))))

    return net(run, stem=nn.Conv2d(3, 4, 1), a=weight(4, 4, 3, 3), head=nn.Conv2d(4, 2, 1))


ROWS = image(5, 3)
EXAMPLES = {
    "concatenated": Example(concatenated, {"b": 0}),
    "summed": Example(summed, {"a": 0}),
    "low rank": Example(low_rank, {"w": 0, "b": 1}, inputs=ROWS),
    "einsum": Example(einsum, {"a": 0}),
    "bias first": Example(bias_first, {"weight": 0}, last="weight", inputs=ROWS),
    "repeated": Example(repeated, {"a": 0}),
    "transposed": Example(transposed(5), {"second": 0, "second#2": 1}, inputs=ROWS),
    "square transposed": Example(transposed(6), {"second": 0, "second#2": 1}, inputs=ROWS),
    "autoencoder": Example(autoencoder, {"code": 0, "code#2": 1}, last="code#2", inputs=ROWS),
    "normalized": Example(normalized, {"second": 0}),
    "computed twice": Example(computed_twice, {"a": 0}),
}


def loss(outputs: Tensor, target: float) -> Tensor:
    return ((outputs - target) ** 2).mean()


def prepare(example: Example) -> tuple[nn.Module, Any, list[tuple[Tensor, float]]]:
    model, x = randomize(example.build()), in_double(example.inputs())
    return model, ranp.trace(model, x), [(x, 0.5), (x.flip(0) * 2, -3.0)]


def without_biases(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model).train()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    return model


@pytest.mark.parametrize("reduce", ["sum", "max", "mean"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_scores_are_gradients_of_masks(name: str, reduce: Any) -> None:
    example = EXAMPLES[name]
    model, graph, batches = prepare(example)
    found = ranp.score(model, graph, batches, loss, criterion="vanilla", reduce=reduce).stages["importance"]
    masked, saliency = without_biases(model), {}
    for x, target in batches:
        masked.probe.masks = {}
        loss(masked(x), target).backward()
        for layer, mask in masked.probe.masks.items():
            saliency[layer] = saliency.get(layer, 0) + mask.grad.abs() / len(batches)
    assert set(found) == {layer.name for layer in graph.layers}
    for layer, dim in example.masked.items():
        values = saliency[layer.partition("#")[0]].movedim(dim, 0).flatten(1)
        expected = getattr(values, f"a{reduce}" if reduce == "max" else reduce)(1)
        np.testing.assert_allclose(found[layer], expected.numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", EXAMPLES)
def test_scores_are_finite_differences_of_gates(name: str) -> None:
    example = EXAMPLES[name]
    model, graph, batches = prepare(example)
    scores = ranp.score(model, graph, batches, loss, criterion="vanilla", importance="neuron")
    gated = without_biases(model)
    count, last = len(scores.channels), next(layer for layer in graph.layers if layer.name == example.last)

    def slopes(attribute: str, size: int) -> list[float]:
        found = []
        for step in STEP * torch.eye(size, dtype=torch.float64):
            totals = []
            for gates in (1 + step, 1 - step):
                gated.probe = Probe(**{attribute: gates})
                with torch.no_grad():
                    totals.append(sum(float(loss(gated(x), target)) for x, target in batches))
            found.append(abs(totals[0] - totals[1]) / (2 * STEP * len(batches)))
        return found

    for attribute, values in (("channels", scores.channels), ("outputs", scores.stages["importance"][last.name])):
        expected = slopes(attribute, len(values))
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7 * max(expected))
    assert count == sum(group.width for group in graph.groups) > 0


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_the_way_in_which_weights_are_stored_does_not_matter(importance: Any) -> None:
    x = image(2, 3, 7, 7)()
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1))
    normed = copy.deepcopy(plain)
    for layer in (normed[0], normed[2]):
        parametrizations.weight_norm(layer)
    found = [
        ranp.score(model, ranp.trace(model, x), [(x, 0.5)], loss, importance=importance).channels
        for model in (plain, normed)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def with_checkpoint(reentrant: bool | None, kind: Callable[[nn.Module], nn.Module]) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        def block(x: Tensor) -> Tensor:
            # It ends with a layer, whose gradients are the first that the backward pass computes.
            return net.outer(net.inner(x).relu_())

        x = net.stem(x).relu()
        return net.head(block(x) if reentrant is None else checkpoint(block, x, use_reentrant=reentrant))

    inner, outer = kind(nn.Conv2d(4, 6, 3)), kind(nn.Conv2d(6, 5, 1))
    return Net(run, stem=nn.Conv2d(3, 4, 1), inner=inner, outer=outer, head=nn.Conv2d(5, 2, 1))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # tracing needs no gradients
@pytest.mark.parametrize("importance", ["parameter", "neuron"])
@pytest.mark.parametrize("kind", [lambda layer: layer, parametrizations.weight_norm], ids=["plain", "computed"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_change_nothing(reentrant: bool, kind: Any, importance: Any) -> None:
    models = [randomize(with_checkpoint(how, kind)) for how in (None, reentrant)]
    x = in_double(image(2, 3, 7, 7)())
    found = [
        ranp.score(model, ranp.trace(model, x), [(x, 0.5), (-x, 1.0)], loss, importance=importance).channels
        for model in models
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_attention_reads_its_weights_in_parts(importance: Any) -> None:
    # One parameter has the weights of queries and, in one matrix, those of keys and values.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.other(x)
        return net.head(net.attend(net.stem(x), y, y)[0])

    x = image(2, 5, 3)().double()
    attend = nn.MultiheadAttention(8, 2, batch_first=True)
    model = randomize(Net(run, stem=nn.Linear(3, 8), other=nn.Linear(3, 8), attend=attend, head=nn.Linear(8, 2)))
    graph = ranp.trace(model, x)
    scores = ranp.score(model, graph, [(x, 0.5)], loss, criterion="vanilla", importance=importance)
    parts = [layer for layer in graph.layers if layer.weight == "attend.in_proj_weight"]
    assert len({layer.name for layer in parts}) == len(parts) > 1
    assert all(scores.stages["importance"][layer.name].any() for layer in parts)


def test_what_reads_by_a_weight_that_depends_on_the_input_is_refused_for_neurons() -> None:
    # Experts mixed for each batch, as in CondConv.
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        shares = net.route(x.mean((0, 2, 3))).softmax(0)
        return net.head(F.conv2d(x, (along(shares, 0, 5) * net.experts).sum(0)).relu())

    parts = {"stem": nn.Conv2d(3, 6, 1), "route": nn.Linear(6, 4), "experts": weight(4, 5, 6, 3, 3)}
    model = randomize(Net(run, head=nn.Conv2d(5, 2, 1), **parts))
    x = in_double(image(2, 3, 7, 7)())
    graph = ranp.trace(model, x)
    assert [group.name for group in graph.groups] == ["stem"]
    assert ranp.score(model, graph, [(x, 0.5)], loss).channels.all()
    with pytest.raises(InputError, match=r"^importance='neuron' at experts: it reads channels.*; use importance='para"):
        ranp.score(model, graph, [(x, 0.5)], loss, importance="neuron")


def test_weights_modulated_for_each_sample() -> None:
    # As in StyleGAN 2, with the samples of a batch as the blocks of a grouped convolution.
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x).relu()
        scales = net.style(x.mean((2, 3)))[:, None, :, None, None]
        weights = (net.weights[None] * scales).flatten(0, 1)
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weights, groups=len(x))
        return net.head(y.reshape(len(x), -1, *y.shape[2:]).relu())

    parts = {"stem": nn.Conv2d(3, 6, 1), "style": nn.Linear(6, 6), "weights": weight(5, 6, 3, 3)}
    model = randomize(Net(run, head=nn.Conv2d(5, 2, 1), **parts))
    x = in_double(image(2, 3, 7, 7)())
    graph = ranp.trace(model, x)
    layers = ranp.score(model, graph, [(x, 0.5)], loss, criterion="vanilla").stages["importance"]
    assert all(layers[layer.name].any() for layer in graph.layers)
