"""Budgets on step time are met by measurement, on a device whose speed is known."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.simulated_device import simulate
from ranp.costs.time import MeasuredStep, TimeTable
from ranp.errors import ArtifactError, BudgetError, InputError
from ranp.models import UNet3D
from ranp.timing import StepTimer, Stopwatch

FINE = {"min_width": 1, "round_to": 1}


@pytest.fixture(autouse=True, scope="module")
def simulated_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each network is measured once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            patch.setenv(name, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, rest_seconds=1e-4)


@pytest.fixture
def network() -> tuple[nn.Module, Tensor]:
    return UNet3D(1, 2, 32, levels=2), torch.randn(2, 1, 8, 8, 8)


def seconds(model: nn.Module, x: Tensor) -> float:
    """The duration of a step of a model, measured independently of the budget."""
    graph = ranp.trace(model, x)
    timer = StepTimer(model, graph, x)
    return Stopwatch(timer.device).timed(timer.step(graph.widths))[0]


def pruned(model: nn.Module, x: Tensor, **how: Any) -> ranp.PruneResult:
    return ranp.prune(model, x, [], criterion="uniform", **how)


def step_of(result: ranp.PruneResult) -> MeasuredStep:
    assert result.report.step_time is not None
    return result.report.step_time


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_a_fraction_is_met(network: Any, fraction: float) -> None:
    model, x = network
    result = pruned(model, x, budget=ranp.Budget(step_time=fraction), **FINE)
    full, small = seconds(model, x), seconds(result.model, x)
    assert 0.85 * fraction < small / full < 1.05 * fraction
    step = step_of(result)
    assert step.measured == pytest.approx(small)
    assert step.full == pytest.approx(full)
    assert step.requested == pytest.approx(fraction * full)
    assert step.predicted == pytest.approx(small, rel=0.1)
    assert result.plan.budget == ranp.Budget(step_time=fraction)
    assert result.report.warnings == ()
    shown = str(result.report)
    for name in ("requested", "predicted", "measured"):
        assert f"{getattr(step, name) * 1e3:,.3f} ms" in shown


def test_an_amount_is_met_together_with_other_limits(network: Any) -> None:
    model, x = network
    full = seconds(model, x)
    budget = ranp.Budget(step_time=f"{0.5 * full * 1e3} ms", macs=0.02)
    result = pruned(model, x, budget=budget, **FINE)
    assert result.plan.cost.macs <= 0.02 * result.plan.full_cost.macs
    assert step_of(result).requested == pytest.approx(0.5 * full)
    assert (step_of(result).measured or 1) < 0.4 * full
    assert result.plan.budget == budget


def table_of(model: nn.Module, x: Tensor, factor: float = 1) -> TimeTable:
    """Step times as they would be on a device that is faster or slower by a factor."""
    table = ranp.measure_times(model, x)
    samples = tuple(
        replace(each, seconds=each.seconds * factor, operators=tuple(factor * one for one in each.operators))
        for each in table.samples
    )
    return replace(table, samples=samples)


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_wrong_predictions_are_corrected(network: Any, factor: float) -> None:
    model, x = network
    wrong = table_of(model, x, factor)
    requested = 0.5 * seconds(model, x)
    result = pruned(model, x, budget=ranp.Budget(step_time=f"{requested} s"), times=wrong, **FINE)
    assert 0.85 * requested < seconds(result.model, x) < 1.05 * requested
    assert result.plan.budget == ranp.Budget(step_time=f"{requested} s")
    assert step_of(result).predicted == pytest.approx(factor * (step_of(result).measured or 0), rel=0.1)


def test_what_no_plan_meets_is_reported(network: Any) -> None:
    """The narrowest network is twice as slow as predicted: it is what is returned."""
    model, x = network
    wrong = table_of(model, x, 0.5)
    least = wrong.evaluate([1] * len(ranp.trace(model, x).groups))
    budget = ranp.Budget(step_time=f"{1.01 * least} s")
    result = pruned(model, x, budget=budget, times=wrong, **FINE)
    assert len(result.report.warnings) >= 1
    assert any(
        "a training step takes" in warning and "lower the budget" in warning for warning in result.report.warnings
    )
    assert (step_of(result).measured or 0) > 1.2 * step_of(result).requested


def test_a_budget_below_the_minimum_is_refused_in_its_unit(network: Any) -> None:
    model, x = network
    with pytest.raises(BudgetError, match=r"got step_time=10 us; expected a feasible budget: step_time >= [\d.]+ us"):
        pruned(model, x, budget=ranp.Budget(step_time="10 us"))
    with pytest.raises(BudgetError, match=r"expected a feasible budget: step_time >= 0\.\d+; raise"):
        pruned(model, x, budget=ranp.Budget(step_time=0.001))


def test_times_of_another_device_are_refused(network: Any) -> None:
    model, x = network
    table = table_of(model, x)
    other = replace(table, key={**table.key, "device": "another GPU"})
    with pytest.raises(ArtifactError, match="times: the step times are those of device 'another GPU', not"):
        pruned(model, x, budget=ranp.Budget(step_time=0.5), times=other)


def test_times_are_costs_without_a_budget_on_them(network: Any) -> None:
    model, x = network
    table = table_of(model, x)
    result = pruned(model, x, budget=ranp.Budget(macs=0.5), times=table)
    assert result.report.after.step_seconds == table.evaluate([len(kept) for kept in result.plan.keep.values()])
    assert result.report.step_time is None


class Greedy(nn.Module):
    """Runs out of memory above a width."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 40
        self.first, self.last = nn.Conv2d(1, 40, 3), nn.Conv2d(40, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.training and y.shape[1] > self.most:
            raise torch.OutOfMemoryError("tried to allocate 3 GiB")
        return self.last(y)


def test_the_full_network_need_not_fit_into_memory() -> None:
    model, x = Greedy(), torch.randn(2, 1, 24, 24)
    model.most = 30
    result = pruned(model, x, budget=ranp.Budget(step_time=0.5), **FINE)
    assert step_of(result).full is None
    assert step_of(result).measured == pytest.approx(seconds(result.model, x))
    assert step_of(result).requested == pytest.approx(0.5 * (result.plan.full_cost.step_seconds or 0))


def test_a_plan_that_cannot_be_measured_is_not_lost() -> None:
    model, x = Greedy(), torch.randn(2, 1, 24, 24)
    table = ranp.measure_times(model, x)
    model.most = 0
    result = pruned(model, x, budget=ranp.Budget(step_time=0.7), times=table, **FINE)
    assert (step_of(result).measured, step_of(result).full) == (None, None)
    assert result.plan.cost.step_seconds <= 0.7 * table.evaluate([40])
    warning = "the time of a step was not measured: the pruned network's step does not fit into memory"
    assert warning in result.report.warnings


def test_errors_of_the_step_come_through(network: Any) -> None:
    model, x = network
    table = table_of(model, x)

    def step(model: nn.Module, batch: Any) -> Tensor:
        raise ValueError("no such label")

    setup = ranp.TrainingSetup(step=step, batch=(x, None))
    same = replace(table, key=StepTimer(model, ranp.trace(model, x), x, setup).key)
    with pytest.raises(ValueError, match="no such label"):
        pruned(model, x, budget=ranp.Budget(step_time=0.7), times=same, setup=setup)


def test_several_processes_are_refused(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match="step times: they differ between the processes of a group; prune in one"):
        pruned(model, x, budget=ranp.Budget(step_time=0.7))


def test_the_same_times_give_the_same_plan(network: Any) -> None:
    model, x = network
    table = table_of(model, x)
    plans = [pruned(model, x, budget=ranp.Budget(step_time=0.4), times=table, **FINE).plan for _ in range(2)]
    assert plans[0] == plans[1]
