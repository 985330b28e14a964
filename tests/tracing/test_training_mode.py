"""What runs only in training mode is pruned with the rest, or left unpruned with it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import Net, image
from helpers.oracles import random_plan
from ranp.graph import ChannelGraph

X = image(2, 3, 7, 7)()


def deep_supervision() -> nn.Module:
    """A second head, whose outputs are stacked upon the first's in training."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        side, out = net.side(y), net.head(net.inner(y).relu())
        return torch.stack([out, side]) if net.training else out

    return Net(run, body=nn.Conv2d(3, 6, 3), inner=nn.Conv2d(6, 5, 1), side=nn.Conv2d(6, 2, 1), head=nn.Conv2d(5, 2, 1))


def training_branch() -> nn.Module:
    """A branch that is not even computed in eval mode."""

    def run(net: Any, x: Tensor) -> Any:
        y = net.body(x).relu()
        out = net.head(y)
        return (out, net.decode(net.norm(net.code(y)).relu())) if net.training else out

    return Net(
        run,
        body=nn.Conv2d(3, 6, 3),
        code=nn.Conv2d(6, 4, 1),
        norm=nn.BatchNorm2d(4),
        decode=nn.Conv2d(4, 3, 1),
        head=nn.Conv2d(6, 2, 1),
    )


def relies_on_a_width_in_training() -> nn.Module:
    """A loss term that relies on six channels, in training only."""

    def run(net: Any, x: Tensor) -> Any:
        y = net.body(x).relu()
        out = net.head(net.inner(y).relu())
        return (out, y.reshape(len(x), 6, -1).mean(2)) if net.training else out

    return Net(run, body=nn.Conv2d(3, 6, 3), inner=nn.Conv2d(6, 5, 1), head=nn.Conv2d(5, 2, 1))


def traced(model: nn.Module) -> tuple[ChannelGraph, nn.Module]:
    graph = ranp.trace(model, X)
    small = ranp.apply(model, random_plan(graph, 0, 0.3))
    return graph, small


def test_a_head_for_training_keeps_its_classes() -> None:
    graph, small = traced(deep_supervision())
    assert {group.name: group.width for group in graph.groups} == {"body": 6, "inner": 5}
    assert small.train()(X).shape == (2, 2, 2, 5, 5)


def test_a_branch_for_training_follows_what_it_reads() -> None:
    graph, small = traced(training_branch())
    assert {group.name: group.width for group in graph.groups} == {"body": 6}
    assert small.body.out_channels < 6
    out, code = small.train()(X)
    assert out.shape == (2, 2, 5, 5)
    assert code.shape == (2, 3, 5, 5)
    # What a forward pass costs is what it costs in eval mode.
    assert graph.cost().macs == 2 * 25 * (6 * 3 * 9 + 2 * 6)


def test_widths_that_training_mode_relies_on_are_found() -> None:
    graph, small = traced(relies_on_a_width_in_training())
    assert {group.name: group.width for group in graph.groups} == {"inner": 5}
    assert [len(output) for output in small.train()(X)] == [2, 2]


class StochasticDepth(nn.Module):
    """Drops samples in training, written in several ways."""

    def __init__(self, how: str, rate: float = 0.5) -> None:
        super().__init__()
        self.how, self.rate = how, rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        if self.how == "bernoulli":
            return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.5).div_(0.5)
        if self.how == "rand":
            return x.div(0.5) * torch.rand(len(x), 1, 1, 1).add(0.5).floor_()
        if self.how == "in place":
            return x.mul_(torch.rand(len(x), 1, 1, 1) < 0.5)
        return x * torch.rand(1, 6, 1, 1)  # a fixed number of channels


def tried_in(layer: nn.Module) -> list[bool]:
    """The modes that a network with this layer is run in."""
    modes: list[bool] = []

    class Seen(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(vars(self).get("training", False))  # unlike `self.training`, tracing cannot observe this
            return super().forward(x)

    ranp.trace(nn.Sequential(Seen(3, 6, 3), layer, nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1)), X)
    return modes


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.BatchNorm2d(6), nn.InstanceNorm2d(6, affine=True), nn.Sequential(nn.ReLU())]
)
def test_a_forward_that_never_reads_the_mode_runs_in_one(layer: nn.Module) -> None:
    assert not any(tried_in(layer))


class ReadsMode(nn.Module):
    """Does the same in both modes, but reads the mode, of itself or of another module."""

    def __init__(self, source: nn.Module | None = None) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().mul(2 if (self.source or self).training else 3)


@pytest.mark.parametrize(
    "layer",
    [
        *(StochasticDepth("bernoulli"), StochasticDepth("rand"), StochasticDepth("in place")),
        *(nn.RReLU(), nn.Sequential(nn.Tanh(), nn.RReLU(inplace=True))),
        nn.Sequential(*[StochasticDepth("rand")] * 2),
        nn.Sequential(StochasticDepth("rand", 0), nn.ReLU(), StochasticDepth("rand")),
    ],
)
def test_modules_that_treat_channels_alike_in_both_modes_are_judged_alone(layer: nn.Module) -> None:
    assert tried_in(layer) == [False] * 2


class Flagged(nn.Module):
    """Returns the mode that it is in."""

    def forward(self, x: Tensor) -> tuple[Tensor, bool]:
        return x, self.training


class Summed(nn.Module):
    """Adds its second input in training."""

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        return x if shift is None or not self.training else x + shift


def _flipped(net: Any, x: Tensor) -> Tensor:
    y, training = net.flagged(x)
    return y.flip(1) if training else y


@pytest.mark.parametrize(
    "layer",
    [
        Net(_flipped, flagged=Flagged()),
        Net(lambda net, x: net.summed(x, shift=x.flip(1)), summed=Summed()),
        Net(lambda net, x: net.summed(x, x.flip(1)), summed=Summed()),
        Net(lambda net, x: x.flip(1) if net.inner.training else net.inner(x), inner=StochasticDepth("rand")),
    ],
)
def test_effects_outside_a_module_are_seen_in_training_mode(layer: nn.Module) -> None:
    assert tried_in(layer) == [False, True] * 2


@pytest.mark.parametrize("source", [None, nn.Conv2d(1, 1, 1)])
def test_modes_that_are_equivalent_are_validated_once(source: nn.Module | None) -> None:
    assert tried_in(ReadsMode(source)) == [False, *([True] if source else []), False]


def test_a_network_that_reads_the_mode_is_run_once_in_each() -> None:
    modes: list[bool] = []

    class Reads(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            modes.append(vars(self).get("training", False))
            return super().forward(input).mul(2 if self.training else 3)

    ranp.trace(Reads(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)), X)
    assert modes == [False, True, False]


def test_the_mode_can_be_set_and_compared_and_modules_copied_within_a_forward() -> None:
    """Nothing that a forward can look at differs from what it sees outside of a trace."""
    seen: list[tuple[bool, ...]] = []

    def run(net: Any, x: Tensor) -> Tensor:
        # One trace within another, of a model and an input that are made where this one runs.
        ranp.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), torch.zeros(X.shape))
        before = net.conv.training
        net.conv.train(not before)
        inner = copy.deepcopy(net.conv)
        seen.append((net.conv.training is not before, inner.training is not before))
        net.conv.training = before
        kinds = type(net.conv) is net.conv.__class__ is nn.Conv2d and not hasattr(nn.Conv2d, "training")
        seen.append((net.conv.training is before, kinds, "training" not in dict(net.conv.named_buffers())))
        return inner(x) + net.conv(x)

    ranp.trace(Net(run, conv=nn.Conv2d(3, 2, 1)), X)
    assert len(seen) >= 2
    assert all(all(found) for found in seen)


class Inherited(nn.Module):
    """Takes its mode from another module, as compiled modules do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @property
    def training(self) -> bool:
        return self.inner.training

    @training.setter
    def training(self, value: bool) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.training else x


class WithDefault(nn.Module):
    """Its class has a mode too, which an instance overrides."""

    training = False

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.training else x


@pytest.mark.parametrize("layer", [Inherited(nn.Tanh()), WithDefault()])
def test_a_class_with_a_mode_of_its_own_is_run_in_both(layer: nn.Module) -> None:
    assert tried_in(layer) == [False, True] * 2


class Final(nn.Module):
    """A class that cannot be subclassed."""

    def __init_subclass__(cls) -> None:
        raise TypeError("final")

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.training and type(self) is Final else x


def test_a_class_that_cannot_be_subclassed_is_observed() -> None:
    assert tried_in(Final()) == [False, True] * 2
    assert not ranp.trace(nn.Sequential(nn.Conv2d(3, 6, 3), Final(), nn.Conv2d(6, 2, 1)), X).groups


class Shifted(nn.Module):
    """Adds something in training."""

    def __init__(self, shift: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift(x) if self.training else x


@pytest.mark.parametrize(
    "layer",
    [
        Shifted(lambda x: torch.rand_like(x)),
        Shifted(lambda x: x.mean((1, 2, 3), keepdim=True)),
        Shifted(lambda x: x.flip(1)),
        Shifted(lambda x: torch.rand(1, 1, *x.shape[2:])),
        Shifted(lambda x: torch.rand(x.shape[-1])),
        Shifted(lambda x: torch.rand(6, 1, 1)),
    ],
)
def test_modes_that_may_treat_channels_differently_are_both_validated(layer: nn.Module) -> None:
    assert tried_in(layer)[:4] == [False, True] * 2


def test_noise_for_a_number_of_channels_in_training_keeps_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), StochasticDepth("channels"), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1))
    graph, small = traced(model)
    assert {group.name: group.width for group in graph.groups} == {"2": 5}
    assert small.train()(X).shape == (2, 2, 5, 5)


def test_a_training_mode_that_cannot_be_traced_is_left_out() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        if net.training and float(torch.rand(())) < 0.5:
            return net.head(y.relu())
        return net.head(net.inner(y.relu()).relu())

    model = Net(run, body=nn.Conv2d(3, 6, 3), inner=nn.Conv2d(6, 6, 1), head=nn.Conv2d(6, 2, 1))
    graph, _ = traced(model)
    assert {group.name: group.width for group in graph.groups} == {"body": 6, "inner": 6}
    assert "depends on the data" in graph.untraced_training_mode
    result = ranp.prune(model, X, [], criterion="random", budget=ranp.Budget(macs=0.5))
    assert any("training mode could not be traced" in warning for warning in result.report.warnings)
    assert ranp.trace(deep_supervision(), X).untraced_training_mode == ""


def test_a_branch_for_training_that_depends_on_its_device_is_followed() -> None:
    """Meta tensors cannot run it, in training mode only."""

    def run(net: Any, x: Tensor) -> Any:
        y = net.body(x).relu()
        out = net.head(y)
        return (out, net.side(y * torch.ones(1, 6, 1, 1, device="cpu")[:, : y.shape[1]])) if net.training else out

    model = Net(run, body=nn.Conv2d(3, 6, 3), side=nn.Conv2d(6, 1, 1), head=nn.Conv2d(6, 2, 1))
    assert ranp.trace(model, X).unprunable[-1].operator == "ones"


def test_what_only_an_untraced_training_mode_returns_is_kept() -> None:
    """A forward that drops layers at random is traced in eval mode, where nothing reads the second head."""

    def run(net: Any, x: Tensor) -> Any:
        y = net.body(x).relu()
        if not net.training or torch.rand(1).item() < 0.6:
            y = y + net.other(y)
        outputs = net.head(y), net.second(net.first(y))
        return outputs if net.training else outputs[0]

    convolutions = {"body": (3, 6), "other": (6, 6), "head": (6, 2), "first": (6, 5), "second": (5, 4)}
    model = Net(run, **{name: nn.Conv2d(*sizes, 1) for name, sizes in convolutions.items()})
    graph = ranp.trace(model, X)
    assert graph.untraced_training_mode
    assert {group.name for group in graph.groups} == {"body", "first"}
    plan = random_plan(graph, 0, 0.3)
    assert [tensor.shape[1] for tensor in ranp.apply(model, plan).train()(X)] == [2, 4]
    assert ranp.verify(model, plan, X).status == "exact"
