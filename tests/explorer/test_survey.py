"""The steps of a survey agree with allocation, costs and plans; measured times belong to their steps."""

import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import CASES
from helpers.oracles import EVERY_WIDTH, random_scores
from ranp.costs import Cost
from ranp.explorer import read_survey, survey, with_forward_seconds, write_survey
from ranp.explorer._survey import BUDGETS, MEASURED_STEPS
from ranp.graph import ChannelGraph
from ranp.memory import MemoryPredictor
from ranp.models import UNet3D
from ranp.plan import Plan
from ranp.scores import Scores

Made = tuple[ChannelGraph, Scores, Plan]


def made(name: str, *, min_width: int = 1, round_to: int = 1) -> Made:
    case = CASES[name]
    graph = ranp.trace(case.build().eval(), case.inputs())
    scores = random_scores(graph, seed=3)
    budget = ranp.Budget(params=1.0) if not graph.groups else ranp.Budget(sparsity=0.1)
    try:
        plan = ranp.allocate(graph, scores, budget, min_width=min_width, round_to=round_to)
    except ranp.RanpError:
        plan = ranp.allocate(graph, scores, ranp.Budget(macs=1.0), min_width=min_width, round_to=round_to)
    return graph, scores, plan


@pytest.fixture(scope="module")
def unet() -> Made:
    torch.manual_seed(0)
    graph = ranp.trace(UNet3D(1, 3, width=8), torch.zeros(1, 1, 16, 16, 16))
    scores = random_scores(graph, seed=0)
    return (
        graph,
        scores,
        ranp.allocate(graph, scores, ranp.Budget(params=0.2, activations=0.6), min_width=1, round_to=1),
    )


@pytest.mark.parametrize("name", CASES)
def test_each_step_is_the_plan_of_its_budget(name: str) -> None:
    graph, scores, plan = made(name, min_width=2, round_to=2)
    found = survey(graph, plan, scores)
    for number, step in enumerate(found["steps"]):
        given = {key: value for key, value in step["budget"].items() if value is not None}
        same = ranp.allocate(graph, scores, ranp.Budget(**given), min_width=2, round_to=2)
        assert step["widths"] == [len(same.keep[group.name]) for group in graph.groups]
        assert Cost(**step["cost"]) == same.cost == graph.cost(step["widths"])
        orders = [indices(group["order"]) for group in found["groups"]]
        kept = [tuple(sorted(order[:width])) for order, width in zip(orders, step["widths"], strict=True)]
        assert kept == list(same.keep.values())
        assert {layer["name"]: size(layer["width"], step["widths"]) for layer in found["layers"]} == same.widths
        assert (same == plan) == (number == found["chosen"]), "the chosen step, and no other, is the plan"


@pytest.mark.parametrize("name", CASES)
def test_allocations_add_up_to_the_activation_bytes(name: str) -> None:
    graph, scores, plan = made(name)
    found = survey(graph, plan, scores)
    for step in found["steps"]:
        sizes = [size(form, step["widths"]) for form in found["axes"]]
        each = [entry["factor"] * math.prod(sizes[axis] for axis in entry["axes"]) for entry in found["allocations"]]
        assert sum(each) == step["cost"]["activation_bytes"]


def test_steps_go_from_the_narrowest_to_the_full_network(unet: Made) -> None:
    graph, scores, plan = unet
    steps = survey(graph, plan, scores)["steps"]
    widths = np.array([step["widths"] for step in steps])
    assert (np.diff(widths, axis=0) >= 0).all()
    assert widths[0].max() == 1
    assert (widths[-1] == graph.widths).all()
    for name in ("macs", "params", "activation_bytes", "neurons"):
        assert (np.diff([step["cost"][name] for step in steps]) >= 0).all()
    assert len(steps) > BUDGETS / 2, "in a network this small some budgets give the same plan"


class Seconds:
    """A step takes a second, and one more for every channel."""

    def evaluate(self, widths: Any) -> float:
        return 1.0 + float(np.sum(widths))


@pytest.mark.parametrize("limit", ["step_time", "train_memory"])
def test_steps_are_plans_of_time_or_memory_where_the_budget_limits_it(unet: Made, limit: str) -> None:
    _, scores, _ = unet
    model, x = UNet3D(1, 3, width=8), torch.zeros(1, 1, 16, 16, 16)
    graph = ranp.trace(model, x)
    graph = graph.with_costs(step_seconds=Seconds(), train_bytes=MemoryPredictor(model, x, graph=graph).formula())
    half: dict[str, Any] = {limit: 0.5}
    plan = ranp.allocate(graph, scores, ranp.Budget(**half, params=0.9))
    found = survey(graph, plan, scores)
    assert len(found["steps"]) > 10
    for number, step in enumerate(found["steps"]):
        given = {key: value for key, value in step["budget"].items() if value not in (None, {})}
        assert list(given) == ([limit] if number != found["chosen"] else ["params", limit])
        same = ranp.allocate(graph, scores, ranp.Budget(**given))
        assert Cost(**step["cost"]) == same.cost == graph.cost(step["widths"])
        assert step["cost"]["step_seconds"] == 1.0 + sum(step["widths"])
    assert found["plan"]["full_cost"]["train_bytes"] == graph.cost().train_bytes
    # A graph without the prediction has plans of multiply-adds.
    plain = survey(ranp.trace(model, x), plan, scores)
    assert {"macs"} == {
        key
        for number, step in enumerate(plain["steps"])
        if number != plain["chosen"]
        for key, value in step["budget"].items()
        if value not in (None, {})
    }


def test_without_scores_the_plan_is_the_only_step(unet: Made) -> None:
    graph, _, plan = unet
    found = survey(graph, Plan.from_json(plan.to_json()))
    assert (len(found["steps"]), found["chosen"], found["stages"], found["batches"]) == (1, 0, [], 0)
    pairs = zip(found["groups"], found["steps"][0]["widths"], strict=True)
    kept = {group["name"]: tuple(sorted(indices(group["order"])[:width])) for group, width in pairs}
    assert kept == plan.keep


def test_a_plan_of_another_task_gets_the_shapes_of_this_one(unet: Made) -> None:
    _, _, plan = unet
    other = ranp.trace(UNet3D(2, 7, width=8), torch.zeros(1, 2, 16, 16, 16))
    found = survey(other, plan)
    assert found["plan"]["full_widths"]["head"] == 7
    assert Cost(**found["plan"]["full_cost"]) == other.cost() != plan.full_cost


def test_a_plan_of_another_model_is_refused(unet: Made) -> None:
    other = ranp.trace(UNet3D(1, 3, width=4), torch.zeros(1, 1, 16, 16, 16))
    with pytest.raises(ranp.RanpError, match="survey: the plan was made for another model"):
        survey(other, unet[2])


def test_scores_are_summed_up_by_layer_and_stage() -> None:
    model, x = UNet3D(1, 2, width=4, levels=2), torch.randn(1, 1, 8, 8, 8)
    y = torch.randint(0, 2, (1, 8, 8, 8))
    result = ranp.prune(model, x, [(x, y)], torch.nn.functional.cross_entropy, budget=ranp.Budget(macs=0.5))
    found = result.survey()
    assert [stage["name"] for stage in found["stages"]] == ["importance", "weighted", "ranp-f"]
    for stage in found["stages"]:
        assert stage["layers"].keys() == result.plan.widths.keys()
        for layer, summary in stage["layers"].items():
            values = np.sort(result.scores.stages[stage["name"]][layer])
            assert summary["mean"] == pytest.approx(values.sum() / len(values))
            least, low, median, high, largest = summary["quartiles"]
            assert (least, largest) == (values[0], values[-1])
            assert least <= low <= median <= high <= largest
            assert (values <= median).sum() >= len(values) / 2 <= (values >= median).sum()
    assert found["verification"] == "exact"
    assert found["seconds"].keys() >= {"tracing", "scoring"}


def test_writing_and_reading_again(unet: Made, tmp_path: Path) -> None:
    found = survey(*unet[::2], unet[1], verification="exact", warnings=["<b>"], seconds={"tracing": 0.1})
    path = write_survey(tmp_path, found)
    assert path == tmp_path / "survey.json"
    assert read_survey(path) == found
    assert [file.name for file in tmp_path.iterdir()] == ["survey.json"]


def test_the_same_arguments_give_the_same_survey(unet: Made) -> None:
    assert json.dumps(survey(*unet[::2], unet[1])) == json.dumps(survey(*unet[::2], unet[1]))


def indices(runs: str) -> list[int]:
    ends = [run.partition("-") for run in runs.split(",")]
    return [index for first, _, last in ends for index in range(int(first), int(last or first) + 1)]


def size(form: dict[str, list[list[int]]], widths: list[int]) -> int:
    return form["constant"] + sum(factor * widths[group] for group, factor in form["groups"])  # type: ignore[operator,no-any-return]


# -- measured times ----------------------------------------------------------------------------------------------


class Slow(nn.Module):
    """Takes two milliseconds per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 16, 1), nn.Conv1d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":
            time.sleep(0.002 * self.first.out_channels)
        return self.second(self.first(x)) + torch.rand(1)


@pytest.fixture(scope="module")
def slow() -> tuple[Any, ...]:
    model, x = Slow(), torch.zeros(1, 1, 4)
    graph = ranp.trace(model, x)
    scores = random_scores(graph, 0)
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=0.3), **EVERY_WIDTH)
    return survey(graph, plan, scores), graph, plan, model, x


def test_each_time_is_that_of_the_step(slow: tuple[Any, ...]) -> None:
    found = with_forward_seconds(*slow)
    measured = [step for step in found["steps"] if "forward_seconds" in step]
    assert len(measured) in (MEASURED_STEPS, MEASURED_STEPS + 1)
    assert all("forward_seconds" in found["steps"][number] for number in (0, found["chosen"], -1))
    for step in measured:
        assert 0.002 * step["widths"][0] <= step["forward_seconds"] < 0.002 * step["widths"][0] + 0.1
    plain = [{name: step[name] for name in ("budget", "widths", "cost")} for step in found["steps"]]
    assert {**found, "steps": plain} == slow[0]


def test_model_survey_and_random_state_do_not_change(slow: tuple[Any, ...]) -> None:
    found, _, _, model, _ = slow
    before, state = copy.deepcopy((found, model.state_dict())), torch.get_rng_state()
    with_forward_seconds(*slow)
    assert found == before[0]
    assert model.training
    assert all(torch.equal(tensor, before[1][name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_measuring_stops_after_the_time_limit(slow: tuple[Any, ...]) -> None:
    steps = with_forward_seconds(*slow, seconds=0.001)["steps"]
    assert [number for number, step in enumerate(steps) if "forward_seconds" in step] == [slow[0]["chosen"]]
