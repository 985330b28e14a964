"""A forward that does something else at other widths keeps the channels that this depends on, and no others."""

import random
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ranp
from helpers.networks import Net, image
from helpers.oracles import random_plan
from ranp.errors import TraceError

X = image(2, 3, 7, 7)()


def split_up(y: Tensor) -> Tensor:
    return torch.cat([y[:, :4].relu(), y[:, 4:].tanh()], 1)


def written(y: Tensor) -> Tensor:
    y[:, :4] *= 2
    return y


def summed(y: Tensor) -> Tensor:
    """Of equal shape whatever is chosen."""
    return y + (y.relu() if y.shape[1] > 4 else y)


# From eight channels to eight, each relying on their number.
RELYING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "literal slices": (split_up, "slice"),
    "a literal slice written to": (written, "slice"),
    "a literal slice of few": (lambda y: torch.cat([y[:, :1].relu(), y[:, 1:]], 1), "slice"),
    "a literal slice up to the end": (lambda y: torch.cat([y[:, :-4].relu(), y[:, -4:]], 1), "slice"),
    "narrow": (lambda y: torch.cat([y.narrow(1, 4, 4).relu(), y.narrow(1, 0, 4)], 1), "forward"),
    "a branch": (lambda y: y.tanh() if y.shape[1] > 4 else y.relu(), "tanh"),
    "a branch to the same operator": (summed, "relu"),
    "a number computed from a width": (lambda y: y * y.shape[1] ** -0.5, ""),
    "a whole number": (lambda y: y * y.shape[1], ""),
    "a width that is capped": (lambda y: y / min(y.shape[1], 6), "div"),
    "a scale in a tensor": (lambda y: y / torch.tensor(y.shape[1]).sqrt(), ""),
    "scales in a tensor": (lambda y: y * torch.tensor([[1 / y.shape[1]], [2.0]])[0], ""),
    "a constant tensor": (lambda y: y + torch.full((1,), y.shape[1], dtype=y.dtype), "full"),
    "a number of steps": (lambda y: y.roll(y.shape[1], 2), "roll"),
    "as many operators as channels": (lambda y: [y := y.sin() for _ in range(y.shape[1])][-1], "sin"),
    "fewer operators": (lambda y: y.sin() if y.shape[1] < 8 else y.sin().cos(), "cos"),
    "other arguments": (lambda y: F.leaky_relu(y, 0.1 if y.shape[1] < 7 else 0.2), "leaky_relu"),
    "other tensors": (lambda y: (lambda a, b: torch.add(a, b if y.shape[1] < 7 else a))(y.sin(), y.cos()), "add"),
}


@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.GroupNorm(1, 8), lambda: nn.BatchNorm2d(8)])
@pytest.mark.parametrize("name", RELYING)
def test_only_what_a_forward_relies_on_is_unprunable(name: str, norm: Callable[[], nn.Module]) -> None:
    compute, operator = RELYING[name]

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.after(compute(net.norm(net.body(net.before(x).relu())))).relu())

    model = Net(
        run,
        before=nn.Conv2d(3, 7, 1),
        body=nn.Conv2d(7, 8, 3, padding=1),
        norm=norm(),
        after=nn.Conv2d(8, 6, 1),
        head=nn.Conv2d(6, 2, 1),
    )
    graph = ranp.trace(model, X)
    widths = {group.name: group.width for group in graph.groups}
    assert widths.pop("before") == 7
    assert widths.pop("after") == 6
    # Channels on the other side of a slice may be pruned.
    assert sum(widths.values()) <= 8
    assert not operator or operator in {entry.operator for entry in graph.unprunable}
    for seed, fraction in enumerate((0.0, 0.4, 0.7)):
        assert ranp.verify(model, random_plan(graph, seed, fraction), X).status == "exact"


def test_a_slice_that_begins_at_a_fixed_place_is_noticed() -> None:
    """Its length follows the width, so that all shapes are as they should be."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        middle = y[:, 2 : 2 + y.shape[1] // 2]
        return net.head(torch.cat([middle.relu(), middle.tanh()], 1))

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, X)
    assert any("begins at a fixed number" in entry.reason for entry in graph.unprunable)
    for seed in range(4 if graph.groups else 0):
        assert ranp.verify(model, random_plan(graph, seed, 0.4), X).status == "exact"


@pytest.mark.parametrize("longer", [True, False])
def test_a_last_operator_that_depends_on_a_width_is_noticed(longer: bool) -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        out = net.head(y)
        return out.sigmoid() if (y.shape[1] > 4) == longer else out

    graph = ranp.trace(Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1)), X)
    assert not graph.groups


def test_a_literal_slice_of_all_channels_is_pruned() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        return net.head(y[:, :8].relu() + y[:, 8:].sum())

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, X)
    assert [group.width for group in graph.groups] == [8]
    assert ranp.verify(model, random_plan(graph, 0, 0.4), X).status == "exact"


def test_slices_that_follow_a_width_are_pruned() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        half = y.shape[1] // 2
        return net.head(torch.cat([y[:, :half].relu(), y[:, half:].tanh()], 1))

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, X)
    assert {group.name: group.width for group in graph.groups} == {"body": 4}
    assert ranp.verify(model, random_plan(graph, 0, 0.4), X).status == "exact"


def test_channels_behind_a_literal_slice_are_pruned() -> None:
    """The first three are written to, in place."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        y[:, :3] *= 2
        return net.head(y)

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, X)
    assert [group.width for group in graph.groups] == [5]
    plan = random_plan(graph, 0, 0.3)
    assert set(plan.slices[0].keep) >= {0, 1, 2}
    assert ranp.verify(model, plan, X).status == "exact"


def test_what_comes_after_a_difference_is_compared_too() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = split_up(net.one(x))
        z = split_up(net.two(y))
        return net.head(net.three(z).relu() * 1.5)

    layers = {"one": nn.Conv2d(3, 8, 1), "two": nn.Conv2d(8, 8, 1), "three": nn.Conv2d(8, 8, 1)}
    graph = ranp.trace(Net(run, **layers, head=nn.Conv2d(8, 2, 1)), X)
    assert [group.name for group in graph.groups] == ["three"]


def test_the_same_number_is_the_same_at_all_widths() -> None:
    """NaN is not equal to itself."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        return net.head(y.masked_fill(x[:, :1, 1:-1, 1:-1] > 9, float("nan")))

    graph = ranp.trace(Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1)), X)
    assert [group.width for group in graph.groups] == [8]


def test_layouts_that_depend_on_widths_do_not_matter() -> None:
    """With one channel a transposed tensor is contiguous, so that torch copies nothing."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).transpose(1, 2).reshape(2, 5, -1).reshape(2, 5, -1, 5).transpose(1, 2)
        return net.head(y.contiguous())

    graph = ranp.trace(Net(run, body=nn.Conv2d(3, 2, 3), head=nn.Conv2d(2, 2, 1)), X)
    assert [group.name for group in graph.groups] == ["body"]


def test_shapes_that_change_in_place_are_followed() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).transpose_(1, 3)
        return net.head(y.transpose(1, 3).relu())

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, X)
    assert [group.name for group in graph.groups] == ["body"]
    assert ranp.verify(model, random_plan(graph, 0, 0.4), X).status == "exact"


# -- forwards that are not the same every time -------------------------------------------------------------------------


def with_offset(offset: Callable[[], Tensor | float]) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head((net.body(x) + offset()).relu())

    return Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))


def test_random_numbers_of_python_are_the_same_every_time() -> None:
    state = random.getstate()
    graph = ranp.trace(with_offset(random.random), X)
    assert [group.name for group in graph.groups] == ["body"]
    assert random.getstate() == state


def test_a_forward_with_a_cache_of_its_own_is_traced() -> None:
    @lru_cache
    def offset() -> Tensor:
        return torch.ones(1).sin()

    graph = ranp.trace(with_offset(offset), X)
    assert [group.name for group in graph.groups] == ["body"]


def test_a_forward_that_is_another_every_time_is_refused() -> None:
    calls = count()
    with pytest.raises(TraceError, match="forward of the model: runs other operators each time it is called"):
        ranp.trace(with_offset(lambda: next(calls)), X)
