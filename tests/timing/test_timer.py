"""Tables of step times: right on a device whose speed is known, and robust where it is not."""

import itertools
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.simulated_device import simulate
from helpers.unchanged import assert_unchanged, inputs, network
from ranp.costs.time import TimeTable
from ranp.errors import InputError, OutOfMemoryError
from ranp.models import UNet3D
from ranp.timing import StepTimer, Stopwatch, narrowed, sample_widths

SHAPE = (2, 1, 8, 8, 8)


def unet() -> tuple[nn.Module, ranp.graph.ChannelGraph, Tensor]:
    model, x = UNet3D(1, 2, 32, levels=3), torch.randn(SHAPE)
    return model, ranp.trace(model, x), x


def seconds(timer: StepTimer, widths: np.ndarray) -> float:
    return Stopwatch(timer.device).timed(timer.step(widths))[0]


def test_steps_at_other_widths_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch)
    model, graph, x = unet()
    timer = StepTimer(model, graph, x)
    table = timer.table()
    random, errors = np.random.default_rng(1), []
    for _ in range(12):
        widths = np.maximum(np.round(graph.widths * np.exp(random.uniform(-2, 0, len(graph.widths)))), 1).astype(int)
        assert widths.tolist() not in [list(sample.widths) for sample in table.samples]
        errors.append(abs(table.evaluate(widths) / seconds(timer, widths) - 1))
    assert statistics.median(errors) < 0.02
    assert max(errors) < 0.08


def test_what_was_measured_is_predicted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch)
    model, graph, x = unet()
    timer = StepTimer(model, graph, x)
    table = timer.table()
    for sample in table.samples:
        assert table.evaluate(sample.widths) == pytest.approx(sample.seconds, rel=0.01)
    widths = np.maximum(graph.widths // 5, 1)
    measured = seconds(timer, widths)
    refined = timer.refined(table, widths)
    assert len(refined.samples) == len(table.samples) + 1
    assert refined.evaluate(widths) == pytest.approx(measured, rel=1e-6)
    near = widths + (np.arange(len(widths)) == 3)
    assert abs(refined.evaluate(near) / seconds(timer, near) - 1) < 0.02
    again = timer.refined(refined, widths)
    assert len(again.samples) == len(refined.samples)


def test_tracing_and_timing_leave_the_model_alone() -> None:
    model = network()
    graph = ranp.trace(model, inputs())
    assert_unchanged(model, lambda: StepTimer(model, graph, inputs()).table(limit_seconds=0))


def test_the_time_limit_leaves_few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch)
    model, graph, x = unet()
    seen: list[tuple[str, int, int]] = []
    table = StepTimer(model, graph, x).table(limit_seconds=0, progress=lambda *step: seen.append(step))
    assert len(table.samples) == 4
    assert [step[1] for step in seen] == [0, 1, 2, 3, 12]
    assert {(step[0], step[2]) for step in seen} == {("measuring step times", 12)}


class Greedy(nn.Module):
    """Runs out of memory above a width."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.first, self.last = most, nn.Conv2d(1, 40, 3), nn.Conv2d(40, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.training and y.shape[1] > self.most:
            raise torch.OutOfMemoryError("tried to allocate 3 GiB")
        return self.last(y)


def test_widths_that_do_not_fit_into_memory_are_left_out() -> None:
    model, x = Greedy(30), torch.randn(2, 1, 8, 8)
    graph = ranp.trace(model, x)
    timer = StepTimer(model, graph, x)
    table = timer.table(limit_seconds=1)
    assert all(sample.widths[0] <= 30 for sample in table.samples)
    assert table.evaluate([40]) > 0
    with pytest.raises(OutOfMemoryError, match=r"^step times: the training step does not fit into memory; lower"):
        timer.refined(table, [40])
    with pytest.raises(OutOfMemoryError, match=r"only 0 of 12 training steps at different widths fit into memory"):
        StepTimer(Greedy(1), graph, x).table(limit_seconds=1)


def test_other_errors_of_the_step_are_not_hidden() -> None:
    model, graph, x = unet()

    def step(model: nn.Module, batch: Any) -> Tensor:
        raise ValueError("no such label")

    with pytest.raises(ValueError, match="no such label"):
        StepTimer(model, graph, x, ranp.TrainingSetup(step=step, batch=x)).table()


def test_a_busy_device_is_measured_longer_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch)
    model, x = nn.Sequential(nn.Conv2d(1, 24, 3), nn.ReLU(), nn.Conv2d(24, 2, 3)), torch.randn(2, 1, 8, 8)
    graph = ranp.trace(model, x)
    calm = StepTimer(model, graph, x).table(limit_seconds=20)
    quiet, counts = Stopwatch.timed, itertools.count()

    def disturbed(watch: Stopwatch, step: Any) -> tuple[float, float]:
        seconds, launch = quiet(watch, step)
        return seconds * (1, 1.5, 1.9)[next(counts) % 3], launch

    monkeypatch.setattr(Stopwatch, "timed", disturbed)
    busy = StepTimer(model, graph, x).table(limit_seconds=20)
    assert calm.warnings == []
    assert busy.warnings == ["the device was busy while step times were measured: repeated steps differed by 50%"]
    assert next(counts) >= 12 * 9
    # The shortest of the repeated steps is the least disturbed one.
    assert busy.evaluate(graph.widths) == pytest.approx(calm.evaluate(graph.widths))


def test_a_model_without_channels_to_remove_has_no_table() -> None:
    model, x = nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8)
    with pytest.raises(InputError, match="no channel that can be removed"):
        StepTimer(model, ranp.trace(model, x), x)


def test_a_narrowed_model_has_the_first_channels() -> None:
    model, graph, _ = unet()
    widths = np.maximum(graph.widths // 3, 1)
    small = narrowed(model, graph, widths)
    assert ranp.trace(small, torch.randn(SHAPE)).widths.tolist() == widths.tolist()
    first = dict(small.named_parameters())["encoder.0.conv1.weight"]
    assert torch.equal(first, dict(model.named_parameters())["encoder.0.conv1.weight"][: len(first)])


def test_sampled_widths_are_valid_and_tell_groups_apart() -> None:
    _, graph, _ = unet()
    found = sample_widths(graph, 12)
    assert found[0].tolist() == graph.widths.tolist()
    assert all((widths >= 2).all() and (widths <= graph.widths).all() for widths in found)
    assert len(np.unique(np.stack(found[:4]), axis=1).T) == len(graph.groups)
    assert sum((widths % 8 == 0).all() for widths in found[1:]) >= 4


def test_a_real_step_is_predicted() -> None:
    """Within a factor that other work on the machine does not reach."""
    model, x = UNet3D(1, 2, 16, levels=3), torch.randn(1, 1, 16, 16, 16)
    graph = ranp.trace(model, x)
    timer = StepTimer(model, graph, x)
    table = timer.table(limit_seconds=3)
    full, narrow = (min(seconds(timer, widths) for _ in range(3)) for widths in (graph.widths, graph.widths // 4))
    assert 0.4 < table.evaluate(graph.widths) / full < 2.5
    assert 0.4 < table.evaluate(graph.widths // 4) / narrow < 2.5
    assert table.evaluate(graph.widths // 4) < 0.9 * table.evaluate(graph.widths)


def times_of(setup: ranp.TrainingSetup) -> TimeTable:
    model, x = UNet3D(1, 2, 8, levels=2), torch.randn(SHAPE)
    graph = ranp.trace(model, x)
    return StepTimer(model, graph, x, setup).table(limit_seconds=0)


def test_the_way_of_training_decides_which_operators_run() -> None:
    plain, mixed, last = (
        times_of(setup)
        for setup in (
            ranp.TrainingSetup(),
            ranp.TrainingSetup(precision="bf16-mixed", optimizer="sgd"),
            ranp.TrainingSetup(channels_last=True),
        )
    )
    families = [{name for each in table.operators for _, name in each.families} for table in (plain, mixed, last)]
    assert not any("bfloat16" in name for name in families[0])
    assert any("convolution" in name and "bfloat16" in name for name in families[1])
    assert any("convolution" in name and "[5]02341" in name for name in families[2])
    assert plain.key["precision"] != mixed.key["precision"]
    assert plain.operator_count > mixed.operator_count - 100
