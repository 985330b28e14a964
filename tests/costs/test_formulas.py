"""The formulas and the list of resources: what they say at given widths, and resources from outside of ranp."""

from dataclasses import asdict, replace
from typing import Any

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
        known = {name: amount for name, amount in amounts.items() if amount is not None}
        assert known == graph.cost([width]).known()
        assert known == {
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
    assert [resource.most(0.25, 80) for resource in RESOURCES] == [20, 20, 20, 20, 20, 60]
    assert [resource.fraction(0, 0) for resource in RESOURCES] == [1, 1, 1, 1, 1, 0]


def test_amounts_have_units() -> None:
    cost = Cost(1_234_567_890, 1_500_000, 2**21, neurons=1234, step_seconds=0.0815, train_bytes=3 * 2**19)
    texts = [resource.text(resource.of(cost)) for resource in RESOURCES]
    assert texts == ["81.500 ms", "1.500 MiB", "1.235 G", "1.500 M", "2.000 MiB", "1,234"]


class PerChannel:
    """A model of a resource: so much for every channel that is kept."""

    def __init__(self, each: float) -> None:
        self.each = each

    def evaluate(self, widths: Any) -> float:
        return self.each * widths.sum().item()


def test_models_of_resources_are_costs_like_any_other() -> None:
    model = nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 6, 3), nn.Conv1d(6, 2, 1))
    plain = ranp.trace(model, torch.zeros(1, 1, 8))
    graph = plain.with_costs(step_seconds=PerChannel(0.001), train_bytes=PerChannel(1024))
    assert graph.cost([3, 2]) == replace(plain.cost([3, 2]), step_seconds=0.005, train_bytes=5120)
    scores = ranp.score(model, graph, [], criterion="uniform")
    for budget in ({"step_time": 0.5}, {"step_time": "7 ms"}, {"train_memory": "7 KiB"}, {"train_memory": "50%"}):
        plan = ranp.allocate(graph, scores, ranp.Budget(**budget), min_width=1, round_to=1)
        assert sum(map(len, plan.keep.values())) == 7
        assert ranp.Plan.from_json(plan.to_json()) == plan
    with pytest.raises(
        ranp.RanpError, match=r"got step_time=1 ms; expected a feasible budget: step_time >= 2 ms; raise"
    ):
        ranp.allocate(graph, scores, ranp.Budget(step_time="1 ms"), min_width=1, round_to=1)
    with pytest.raises(
        ranp.RanpError, match=r"^budget: it limits step_time, which is not known here; ranp.prune measures it;"
    ):
        ranp.allocate(plain, scores, ranp.Budget(step_time="1 ms"))


def test_a_resource_of_ones_own_is_a_name_and_a_cost() -> None:
    energy = Resource("energy", lambda graph, widths: 0.5 * float(np.sum(widths)), unit="J")
    assert (energy.label, energy.limit, energy.text(energy.cost(None, np.array([2, 3])))) == (
        "energy",
        "energy",
        "2.500 J",
    )
