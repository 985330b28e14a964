"""Forward passes of a survey's steps, as measured."""

import copy
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.oracles import random_scores
from ranp.explorer import survey, timed
from ranp.explorer._time import POINTS


class Slow(nn.Module):
    """Takes two milliseconds for every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 16, 1), nn.Conv1d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":
            time.sleep(0.002 * self.first.out_channels)
        return self.second(self.first(x)) + torch.rand(1)


@pytest.fixture(scope="module")
def made() -> tuple[Any, ...]:
    model, x = Slow(), torch.zeros(1, 1, 4)
    graph = ranp.trace(model, x)
    scores = random_scores(graph, 0)
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=0.3))
    return survey(graph, plan, scores), graph, plan, model, x


def test_each_time_is_that_of_the_step(made: tuple[Any, ...]) -> None:
    found = timed(*made)
    measured = [step for step in found["steps"] if "forward_seconds" in step]
    assert len(measured) in (POINTS, POINTS + 1)
    assert all("forward_seconds" in found["steps"][number] for number in (0, found["chosen"], -1))
    for step in measured:
        assert 0.002 * step["widths"][0] <= step["forward_seconds"] < 0.002 * step["widths"][0] + 0.1
    plain = [{name: step[name] for name in ("budget", "widths", "cost")} for step in found["steps"]]
    assert {**found, "steps": plain} == made[0]


def test_model_survey_and_random_state_stay_as_they_were(made: tuple[Any, ...]) -> None:
    found, _, _, model, _ = made
    before, state = copy.deepcopy((found, model.state_dict())), torch.get_rng_state()
    timed(*made)
    assert found == before[0]
    assert model.training
    assert all(torch.equal(tensor, before[1][name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_it_stops_when_the_time_is_spent(made: tuple[Any, ...]) -> None:
    steps = timed(*made, seconds=0.001)["steps"]
    assert [number for number, step in enumerate(steps) if "forward_seconds" in step] == [made[0]["chosen"]]
