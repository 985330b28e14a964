"""What runs in training mode alone is pruned with the rest, or kept whole with it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import Net, image
from helpers.oracles import random_plan
from ranp.graph import ChannelGraph
from ranp.tracing._mode import askers
from ranp.tracing._running import Observer

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


def hard_coded_in_training() -> nn.Module:
    """A loss term that counts on six channels, in training only."""

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


def test_numbers_written_down_for_training_are_found() -> None:
    graph, small = traced(hard_coded_in_training())
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
        return x * torch.rand(1, 6, 1, 1)  # channels, which are written down


def tried_in(layer: nn.Module) -> list[bool]:
    """The modes that a network with this layer is run in."""
    modes: list[bool] = []

    class Seen(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(vars(self)["training"])  # unlike `self.training` nothing that tracing could see
            return super().forward(x)

    ranp.trace(nn.Sequential(Seen(3, 6, 3), layer, nn.ReLU(), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1)), X)
    return modes


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.5), nn.BatchNorm2d(6), nn.InstanceNorm2d(6, affine=True), nn.Sequential(nn.ReLU())]
)
def test_a_forward_that_does_not_ask_for_its_mode_runs_in_one(layer: nn.Module) -> None:
    assert tried_in(layer) == [False, False]  # run, tried out


class Asking(nn.Module):
    """Does the same in both modes, but asks for the mode, by itself or through another module."""

    def __init__(self, asked: nn.Module | None = None) -> None:
        super().__init__()
        self.asked = asked

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().mul(2 if (self.asked or self).training else 3)


@pytest.mark.parametrize(
    "layer",
    [
        *(StochasticDepth("bernoulli"), StochasticDepth("rand"), StochasticDepth("in place")),
        *(nn.RReLU(), nn.Sequential(nn.Tanh(), nn.RReLU(inplace=True))),
        nn.Sequential(*[StochasticDepth("rand")] * 2),
        nn.Sequential(StochasticDepth("rand", 0), nn.ReLU(), StochasticDepth("rand")),
    ],
)
def test_modules_that_do_the_same_to_channels_in_both_modes_are_tried_out_alone(layer: nn.Module) -> None:
    assert tried_in(layer) == [False, False]


class Flagged(nn.Module):
    """Tells the mode that it is in."""

    def forward(self, x: Tensor) -> tuple[Tensor, bool]:
        return x, self.training


class Summed(nn.Module):
    """Adds its second input in training."""

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        return x if shift is None or not self.training else x + shift


def _stays(net: Any, x: Tensor) -> Tensor:
    y, training = net.flagged(x)
    return y.flip(1) if training else y


@pytest.mark.parametrize(
    "layer",
    [
        Net(_stays, flagged=Flagged()),
        Net(lambda net, x: net.summed(x, shift=x.flip(1)), summed=Summed()),
        Net(lambda net, x: net.summed(x, x.flip(1)), summed=Summed()),
        Net(lambda net, x: x.flip(1) if net.inner.training else net.inner(x), inner=StochasticDepth("rand")),
    ],
)
def test_what_a_module_alone_does_not_show_is_seen_in_training_mode(layer: nn.Module) -> None:
    assert tried_in(layer) == [False, True, False, True]


@pytest.mark.parametrize("asked", [None, nn.Conv2d(1, 1, 1)])
def test_modes_that_turn_out_the_same_are_tried_out_once(asked: nn.Module | None) -> None:
    assert tried_in(Asking(asked)) == ([False, True, False] if asked else [False, False])


def test_a_network_that_asks_is_run_once_in_each_mode() -> None:
    modes: list[bool] = []

    class Asks(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            modes.append(vars(self)["training"])
            return super().forward(input).mul(2 if self.training else 3)

    ranp.trace(Asks(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)), X)
    assert modes == [False, True, False]


def test_tracing_leaves_the_class_of_modules_as_it_was() -> None:
    modes: list[object] = []

    def run(net: Any, x: Tensor) -> Tensor:
        ranp.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), X)  # one trace within another
        modes.append(vars(nn.Module).get("training"))
        net.eval()
        modes.append(net.training)
        return net.conv(x)

    with pytest.raises(ZeroDivisionError), askers(Observer()):
        _ = 1 / 0
    ranp.trace(Net(run, conv=nn.Conv2d(3, 2, 1)), X)
    assert isinstance(modes[0], property)
    assert modes[1] is False
    assert "training" not in vars(nn.Module)


def test_models_traced_side_by_side_are_both_run_in_training_mode() -> None:
    begun, other = Event(), Event()
    modes: list[bool] = []

    def first(net: Any, x: Tensor) -> Any:
        modes.append(vars(net)["training"])
        y = net.body(x)
        begun.set()
        other.wait(0.3)  # the other forward, if it could run by now, would be the one that is told
        return (y, net.side(y)) if net.training else y

    def second(net: Any, x: Tensor) -> Any:
        other.set()
        return net.body(x)

    def layers() -> dict[str, nn.Module]:
        return {"body": nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)), "side": nn.Conv2d(2, 4, 1)}

    with ThreadPoolExecutor() as pool:
        pool.submit(ranp.trace, Net(first, **layers()), X)
        assert begun.wait(10)
        pool.submit(ranp.trace, Net(second, **layers()), X).result()
    assert modes == [False, True, False, True]
    assert "training" not in vars(nn.Module)


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
def test_modes_that_may_do_something_else_to_channels_are_both_tried(layer: nn.Module) -> None:
    assert tried_in(layer) == [False, True, False, True]


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


def test_a_branch_for_training_that_minds_its_device_is_followed() -> None:
    """The fastest way to trace does not do for it, in training mode alone."""

    def run(net: Any, x: Tensor) -> Any:
        y = net.body(x).relu()
        out = net.head(y)
        return (out, net.side(y * torch.ones(1, 6, 1, 1, device="cpu")[:, : y.shape[1]])) if net.training else out

    model = Net(run, body=nn.Conv2d(3, 6, 3), side=nn.Conv2d(6, 1, 1), head=nn.Conv2d(6, 2, 1))
    assert ranp.trace(model, X).unprunable[-1].operator == "mul"
