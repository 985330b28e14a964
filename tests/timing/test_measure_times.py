"""Step times are stored, used again, and refused where they do not apply."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ranp
from helpers.simulated_device import simulate
from ranp.costs.time_file import read_times
from ranp.errors import ArtifactError
from ranp.files import cache_folder, read_json, write_json
from ranp.timing import StepTimer, Stopwatch, measure_times


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    simulate(monkeypatch)


@pytest.fixture
def network() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(nn.Conv3d(1, 24, 3), nn.BatchNorm3d(24), nn.ReLU(), nn.Conv3d(24, 2, 3))
    x = torch.randn(2, 1, 8, 8, 8)
    return model, x


class MeasuredError(Exception):
    pass


def forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def table(*_: Any, **__: Any) -> None:
        raise MeasuredError

    monkeypatch.setattr(StepTimer, "table", table)


def test_a_table_is_measured_once(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network
    first = measure_times(model, x)
    forbid_measuring(monkeypatch)
    again = measure_times(model, x)
    assert again.evaluate([7]) == first.evaluate([7])
    with pytest.raises(MeasuredError):
        measure_times(model, x, cache=False)
    with pytest.raises(MeasuredError):
        measure_times(model, x, ranp.TrainingSetup(optimizer="sgd"))
    other = torch.randn(1, 1, 8, 8, 8)
    with pytest.raises(MeasuredError):
        measure_times(model, other)


def test_a_damaged_table_in_the_cache_is_measured_again(network: Any) -> None:
    model, x = network
    first = measure_times(model, x)
    (path,) = (cache_folder() / "step-times").glob("*.json")
    path.write_text(path.read_text()[:100])
    assert measure_times(model, x).evaluate([7]) == first.evaluate([7])
    assert read_times(path).evaluate([7]) == first.evaluate([7])


def test_a_table_of_a_busy_device_is_not_kept_for_later(network: Any, tmp_path: Path, monkeypatch: Any) -> None:
    model, x = network
    calm, numbers = Stopwatch.timed, itertools.count()
    monkeypatch.setattr(Stopwatch, "timed", lambda *args: (calm(*args)[0] * (1 + next(numbers) % 3), 0.0))
    assert measure_times(model, x).warnings
    assert not (cache_folder() / "step-times").exists()
    assert measure_times(model, x, file=tmp_path / "times.json").warnings
    assert (tmp_path / "times.json").exists()


def test_a_file_is_written_and_read(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network
    path = tmp_path / "new" / "times.json"
    first = measure_times(model, x, file=path)
    assert not cache_folder().exists()
    forbid_measuring(monkeypatch)
    assert measure_times(model, x, file=str(path)).evaluate([7]) == first.evaluate([7])


@pytest.mark.parametrize(
    ("field", "value"), [("device", "another GPU"), ("torch", "1.0"), ("precision", "16-mixed"), ("threads", 99)]
)
def test_step_times_of_other_circumstances_are_refused(network: Any, tmp_path: Path, field: str, value: Any) -> None:
    model, x = network
    path = tmp_path / "times.json"
    measure_times(model, x, file=path)
    data = read_json(path, format="ranp-step-times", version=1)
    write_json(path, data | {"key": data["key"] | {field: value}})
    with pytest.raises(ArtifactError, match=rf"times.json: the step times are those of {field} .*, not .*; measure"):
        measure_times(model, x, file=path)


def test_step_times_of_another_network_are_refused(network: Any, tmp_path: Path) -> None:
    model, x = network
    path = tmp_path / "times.json"
    table = measure_times(model, x, file=path)
    other = nn.Sequential(nn.Conv3d(1, 25, 3), nn.BatchNorm3d(25), nn.ReLU(), nn.Conv3d(25, 2, 3))
    traced = ranp.trace(other, x)
    with pytest.raises(ArtifactError, match=r"times.json: the step times are those of another network or input size"):
        measure_times(other, x, graph=traced, file=path)
    with pytest.raises(ranp.RanpError, match=r"^with_costs: step_seconds: the TimeTable is that of another network"):
        traced.with_costs(step_seconds=table)
    larger = ranp.trace(model, torch.randn(2, 1, 9, 9, 9))
    with pytest.raises(ranp.RanpError, match="another network or input size"):
        larger.with_costs(step_seconds=table)


def test_step_time_is_a_cost_like_any_other(network: Any) -> None:
    model, x = network
    plain = ranp.trace(model, x)
    table = measure_times(model, x, graph=plain)
    graph = plain.with_costs(step_seconds=table)
    assert plain.cost([7]).step_seconds is None
    assert graph.cost([7]).step_seconds == table.evaluate([7])
    assert graph.cost().step_seconds == table.evaluate(graph.widths)
    plan = ranp.allocate(graph, ranp.score(model, graph, [], criterion="uniform"), ranp.Budget(macs=0.3))
    assert plan.cost.step_seconds == table.evaluate([len(plan.keep["0"])])
    assert ranp.Plan.from_json(plan.to_json()) == plan
