"""Numbers that modules store change with the channels that they count, and no others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import CASES, Net
from helpers.networks.stored_sizes import Mixed
from helpers.oracles import random_plan

SIZES = {
    "input_asserted": {("first", "channels"): "body", ("second", "channels"): "first.conv"},
    "mixed_depthwise": {("mixed", "splits[0]"): "body", ("mixed", "splits[1]"): "body#2"},
    "partial_convolution": {("partial", "part"): "body", ("partial", "others"): "body#2"},
    "mean_and_spread": {("encoder", "latent"): "encoder.both"},
    "zeros_of_a_stored_number": {("noisy", "channels"): "body"},
}


@pytest.mark.parametrize("name", SIZES)
def test_each_number_is_that_of_its_group(name: str) -> None:
    model, inputs = CASES[name].build(), CASES[name].inputs()
    graph = ranp.trace(model, inputs)
    plan = random_plan(graph, 1, 0.3)
    layers = {"in_channels", "out_channels", "groups", "in_features", "out_features"}
    found = {(entry.module, entry.name): entry.value for entry in plan.settings if entry.name not in layers}
    assert found == {key: len(plan.keep[group]) for key, group in SIZES[name].items()}
    before = {key: value for key, value in vars(model).items() if isinstance(value, (int, list))}
    small = ranp.apply(model, plan)
    for (path, number), value in found.items():
        attribute, _, index = number.partition("[")
        held = getattr(small.get_submodule(path), attribute)
        assert (held[int(index[:-1])] if index else held) == value
    assert {key: value for key, value in vars(model).items() if isinstance(value, (int, list))} == before


def test_a_list_of_the_model_is_not_changed() -> None:
    model, inputs = CASES["mixed_depthwise"].build(), CASES["mixed_depthwise"].inputs()
    splits = model.mixed.splits
    small = ranp.apply(model, random_plan(ranp.trace(model, inputs), 1, 0.3))
    assert model.mixed.splits is splits == [4, 3]
    assert type(small.mixed.splits) is list
    assert sum(small.mixed.splits) == small.body.out_channels < 7


class Expects(nn.Module):
    """Passes on what has as many channels as it expects."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return x


def test_a_number_that_counts_two_groups_keeps_both() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(torch.cat([net.checked(net.left(x)), net.checked(net.right(x).relu())], 1))

    layers = {"left": nn.Conv2d(3, 4, 1), "right": nn.Conv2d(3, 4, 1), "head": nn.Conv2d(8, 2, 1)}
    graph = ranp.trace(Net(run, checked=Expects(4), **layers), torch.zeros(2, 3, 7, 7))
    assert not graph.groups
    assert {entry.path for entry in graph.unprunable} == {"", "checked"}


def test_parts_of_equal_size_are_told_apart_by_their_order() -> None:
    """Three parts, of which two have the same size."""
    model = Net(
        lambda net, x: net.head(net.mixed(net.body(x).relu())),
        body=nn.Conv2d(3, 10, 1),
        mixed=Mixed(4, 3, 3),
        head=nn.Conv2d(10, 2, 1),
    )
    x = torch.zeros(2, 3, 7, 7)
    graph = ranp.trace(model, x)
    assert [group.width for group in graph.groups] == [4, 3, 3]
    for seed in range(3):
        plan = random_plan(graph, seed, 0.3)
        assert ranp.verify(model, plan, x).status == "exact"
