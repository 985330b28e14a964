"""The formulas and the list of resources: what they say at given widths, and resources from outside of ranp."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

import ranp
from ranp.costs import RESOURCES, Cost, Resource


def test_every_resource_is_a_formula_of_the_widths() -> None:
    """By hand: 8 channels in, w neurons, 2 outputs at 6 and 4 positions."""
    graph = ranp.trace(nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 2, 3, bias=False)), torch.zeros(1, 1, 8))
    for width in (1, 3, 8):
        amounts = {resource.name: resource.cost(graph, np.array([width])) for resource in RESOURCES}
        assert amounts == {
            "macs": 6 * 3 * width + 4 * 2 * 3 * width,
            "params": 3 * width + width + 2 * 3 * width,
            "activation_bytes": 4 * (6 * width + 4 * 2),
            "neurons": width + 2,
        }
        assert amounts == asdict(graph.cost([width]))
        assert amounts == {resource.name: resource.of(graph.cost([width])) for resource in RESOURCES}


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_limits_and_fractions_are_inverse(fraction: float) -> None:
    for resource in RESOURCES:
        assert resource.fraction(resource.most(fraction, 80), 80) == fraction
    assert [resource.most(0.25, 80) for resource in RESOURCES] == [20, 20, 20, 60]
    assert [resource.fraction(0, 0) for resource in RESOURCES] == [1, 1, 1, 0]


def test_amounts_have_units() -> None:
    cost = Cost(macs=1_234_567_890, params=1_500_000, activation_bytes=2**21, neurons=1234)
    assert [resource.text(resource.of(cost)) for resource in RESOURCES] == ["1.235 G", "1.500 M", "2.000 MiB", "1,234"]


def test_a_resource_of_ones_own_is_a_name_and_a_cost() -> None:
    energy = Resource("energy", lambda graph, widths: 0.5 * float(np.sum(widths)), unit="J")
    assert (energy.label, energy.limit, energy.text(energy.cost(None, np.array([2, 3])))) == (
        "energy",
        "energy",
        "2.500 J",
    )
