"""Cost formulas against counters that run the pruned model."""

import pytest
import torch
from torch import nn

import ranp
from helpers.networks import CASES
from helpers.oracles import (
    assert_costs_are_counted,
    counted_activation_bytes,
    counted_macs,
    counted_params,
    random_plan,
)
from ranp.models import UNet3D

# Reshaping a permuted tensor copies it, unless the permuted dimensions have shrunk to 1: the formula keeps the copy.
COPIES_MAY_VANISH = {
    "channel_shuffle",
    "channel_shuffle_between_grouped",
    "channels_last",
    "learned_positions_of_tokens",
}


@pytest.mark.parametrize("name", CASES)
def test_hand_made_networks(name: str) -> None:
    case = CASES[name]
    model, inputs = case.build().eval(), case.inputs()
    graph = ranp.trace(model, inputs)
    full = graph.cost()
    assert full == graph.cost(graph.widths)
    assert full.macs == counted_macs(model, inputs) == sum(layer.macs for layer in graph.layers) + case.products
    assert full.params == counted_params(model)
    assert full.activation_bytes == counted_activation_bytes(model, inputs)
    for seed, fraction in enumerate((0.0, 0.3, 0.6, 0.9)):
        # Torch computes products of activations with one channel by other operators, some of which it does not count.
        plan = random_plan(graph, seed, fraction, min_width=2 if case.products else 1)
        small = ranp.apply(model, plan)
        assert plan.full_cost == full
        assert_costs_are_counted(graph, plan, small, inputs, copies_may_vanish=name in COPIES_MAY_VANISH)


def test_the_published_network() -> None:
    model = UNet3D(1, 5, width=8).eval()
    inputs = torch.zeros(1, 1, 17, 16, 18)
    graph = ranp.trace(model, inputs)
    plan = random_plan(graph, 3, 0.2)
    assert_costs_are_counted(graph, plan, ranp.apply(model, plan), inputs)


def test_formulas_by_hand() -> None:
    """3 -> k -> 2 channels on 5 x 5 positions, batch 2, float32; norm and ReLU allocate as much as the convolution."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, torch.zeros(2, 3, 7, 7))
    for k in range(1, 9):
        cost = graph.cost([k])
        assert cost.macs == 50 * (3 * 9 * k + 2 * k)
        assert cost.params == 3 * 9 * k + k + 2 * k + 2 * k + 2
        assert cost.activation_bytes == 4 * 50 * (3 * k + 2)
        assert cost.neurons == k + 2
