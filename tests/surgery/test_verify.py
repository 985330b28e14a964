"""Verification proves what is right, and detects what is not."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import CASES, Net, image
from helpers.oracles import in_double, random_plan, randomize
from ranp.errors import VerificationError


@pytest.mark.parametrize("name", CASES)
def test_hand_made_networks_are_exact(name: str) -> None:
    case = CASES[name]
    model, inputs = randomize(case.build()).float(), case.inputs()
    graph = ranp.trace(model, inputs)
    found = ranp.verify(model, random_plan(graph, 0, 0.3), inputs)
    assert found.status == "exact"
    assert found.max_error <= 1e-9
    assert bool(found.note) == graph.has_cross_channel_norm


def test_an_index_off_by_one_is_noticed() -> None:
    """Every slice of a plan matters to the proof."""
    case = CASES["concatenation"]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    plan = random_plan(ranp.trace(model, inputs), 0, 0.5)
    for index, entry in enumerate(plan.slices):
        free = next(place for place in range(entry.size) if place not in entry.keep)
        wrong = dataclasses.replace(entry, keep=tuple(sorted((*entry.keep[:-1], free))))
        slices = (*plan.slices[:index], wrong, *plan.slices[index + 1 :])
        with pytest.raises(
            VerificationError, match=r"the outputs differ from the masked original's by .* tolerance of 1e-09"
        ):
            ranp.verify(model, dataclasses.replace(plan, slices=slices), inputs)


def test_large_inputs_are_cut() -> None:
    sizes: list[tuple[int, ...]] = []

    def run(net: Any, x: Tensor) -> Tensor:
        sizes.append(tuple(x.shape))
        return net.head(net.body(x).relu())

    model = Net(run, body=nn.Conv3d(1, 4, 3), head=nn.Conv3d(4, 2, 1))
    inputs = torch.zeros(1).expand(2, 1, 500, 500, 500)
    plan = random_plan(ranp.trace(model, inputs), 0, 0.3)
    sizes.clear()
    assert ranp.verify(model, plan, inputs).status == "exact"
    assert all(max(size) <= 32 for size in sizes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_proven_in_double(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)).to(dtype)
    inputs = image(2, 3, 7, 7)().to(dtype)
    plan = random_plan(ranp.trace(model, inputs), 0, 0.3)
    assert ranp.verify(model, plan, inputs).status == "exact"
    assert {tensor.dtype for tensor in ranp.apply(model, plan).parameters()} == {dtype}


def test_models_that_take_one_size_only_get_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 38 * 38, 2))
    inputs = image(1, 3, 40, 40)()
    plan = random_plan(ranp.trace(model, inputs), 0, 0.3)
    assert ranp.verify(model, plan, inputs).outputs == ((1, 2),)


def test_a_forward_that_draws_random_numbers_is_exact() -> None:
    """Autoencoders sample: numbers drawn for fewer channels would be others."""

    def run(net: Any, x: Tensor) -> Tensor:
        mean = net.mean(x)
        drawn = mean + torch.randn_like(mean) * torch.rand(mean.shape[1:]).to(mean)
        return net.head(net.body(drawn[:, :, torch.randperm(x.shape[2])]).relu())

    model = Net(run, mean=nn.Conv2d(3, 6, 1), body=nn.Conv2d(6, 5, 1), head=nn.Conv2d(5, 2, 1))
    graph = ranp.trace(model, image(2, 3, 7, 7)())
    for seed in range(3):
        assert ranp.verify(model, random_plan(graph, seed, 0.1), image(2, 3, 7, 7)()).status == "exact"


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (1, 1, 1, 1)])
def test_parameters_of_few_elements_are_exact(shape: tuple[int, ...]) -> None:
    """A spread cannot be taken from one element."""
    model = Net(
        lambda net, x: net.head((net.body(x) * net.scale).relu()),
        body=nn.Conv2d(3, 6, 1),
        scale=nn.Parameter(torch.ones(shape)),
        head=nn.Conv2d(6, 1, 1),
    )
    plan = random_plan(ranp.trace(model, image(2, 3, 7, 7)()), 0, 0.3)
    assert ranp.verify(model, plan, image(2, 3, 7, 7)()).status == "exact"


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 8), nn.GroupNorm(2, 8), nn.LayerNorm([8, 5, 5])])
def test_norms_over_channels_are_compared_over_the_remaining_ones(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 2, 1))
    inputs = image(2, 3, 7, 7)()
    plan = random_plan(ranp.trace(model, inputs), 0, 0.3)
    found = ranp.verify(model, plan, inputs)
    assert found.status == "exact"
    assert found.max_error < 1e-12
    assert found.outputs == ((2, 2, 5, 5),)
    assert found.note == "norms over channels were compared with the original's over the remaining channels"
    small = ranp.apply(model, plan)
    assert small(inputs).shape == (2, 2, 5, 5)
    if isinstance(norm, nn.LayerNorm):
        assert small[1].normalized_shape == (small[0].out_channels, 5, 5)
    else:
        assert small[1].num_channels == small[0].out_channels
        assert small[1].num_groups == norm.num_groups


def test_forwards_that_require_single_precision() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.body(x.float()).relu())

    model = Net(run, body=nn.Conv2d(3, 6, 3), head=nn.Conv2d(6, 2, 1))
    inputs = image(2, 3, 7, 7)()
    found = ranp.verify(model, random_plan(ranp.trace(model, inputs), 0, 0.3), inputs)
    assert (found.status, found.note) == ("structural", "the model does not run in float64")
    assert found.max_error < 1e-4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1))
    inputs = image(2, 3, 7, 7)()
    plan = random_plan(ranp.trace(model, inputs), 0, 0.3)
    model[1].bias.data[0] = value
    with pytest.raises(
        VerificationError, match=r"^verify: 1.bias: the weights contain NaN or infinity; initialize the model"
    ):
        ranp.verify(model, plan, inputs)


@pytest.mark.parametrize("norm", [nn.Identity(), nn.GroupNorm(1, 8)])
def test_outputs_that_are_not_finite_are_noticed(norm: nn.Module) -> None:
    model = Net(
        lambda net, x: (1e3 * net.head(net.norm(net.body(x)))).exp().exp(),
        body=nn.Conv2d(3, 8, 3),
        norm=norm,
        head=nn.Conv2d(8, 2, 1),
    )
    inputs = image(2, 3, 7, 7)()
    plan = random_plan(ranp.trace(model, inputs), 0, 0.3)
    with pytest.raises(
        VerificationError, match="the outputs of the full model are not finite; a forward that overflows"
    ):
        ranp.verify(model, plan, inputs)


def test_deep_networks_are_proven_too() -> None:
    """Signals that die out on the way would make any two outputs equal."""
    layers = [layer for _ in range(30) for layer in (nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 6, 3), *layers, nn.Conv2d(6, 2, 1))
    for parameter in model.parameters():
        parameter.data *= 0.1
    inputs = image(1, 3, 7, 7)()
    plan = random_plan(ranp.trace(model, inputs), 0, 0.5)
    assert ranp.verify(model, plan, inputs).status == "exact"
    noticed = 0
    reading = [index for index, entry in enumerate(plan.slices) if entry.reads]
    for index in reading[::6]:
        entry = plan.slices[index]
        free = next(place for place in range(entry.size) if place not in entry.keep)
        wrong = dataclasses.replace(entry, keep=tuple(sorted((*entry.keep[:-1], free))))
        slices = (*plan.slices[:index], wrong, *plan.slices[index + 1 :])
        with pytest.raises(VerificationError, match="the outputs differ from the masked original's"):
            ranp.verify(model, dataclasses.replace(plan, slices=slices), inputs)
        noticed += 1
    assert noticed >= 4


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_a_recurrent_layer_reads_is_pruned(kind: type[nn.Module]) -> None:
    """Its states happen to be as wide as its input, and are unprunable."""

    def run(net: Any, x: Tensor) -> Tensor:
        frames = net.body(x.flatten(0, 1)).mean((2, 3)).view(len(x), x.shape[1], -1)
        return net.head(net.recurrent(frames)[0][:, -1])

    layers = {"body": nn.Conv2d(3, 6, 3), "recurrent": kind(6, 6, num_layers=2, batch_first=True, bidirectional=True)}
    model, inputs = Net(run, **layers, head=nn.Linear(12, 2)), image(2, 4, 3, 7, 7)()
    graph = ranp.trace(model, inputs)
    assert [group.name for group in graph.groups] == ["body"]
    plan = random_plan(graph, 0, 0.5)
    small = ranp.apply(model, plan)
    assert small.recurrent.input_size == len(plan.keep["body"]) < 6
    assert small.recurrent.hidden_size == 6
    assert ranp.verify(model, plan, inputs).status == "exact"
    small.train()(inputs).sum().backward()


def test_places_that_padding_adds_have_no_removed_channels() -> None:
    """As where patches are merged, before a norm over channels: at the border some of a patch are padding."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = nn.functional.pad(net.body(x), (0, 1))
        y = torch.cat([y[..., ::2], y[..., 1::2]], 1).movedim(1, -1)
        return net.head(net.norm(y))

    model = Net(run, body=nn.Conv2d(3, 8, 1), norm=nn.LayerNorm(16), head=nn.Linear(16, 2))
    inputs = image(2, 3, 7, 7)()
    assert ranp.verify(model, random_plan(ranp.trace(model, inputs), 0, 0.3), inputs).status == "exact"
