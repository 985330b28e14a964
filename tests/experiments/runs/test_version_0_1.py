"""Runs that version 0.1 wrote: they are evaluated, compared and reported, and one that was stopped is resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from helpers.tiny_runs import CONTENT, curve, recipe, run
from ranp.cli import app
from ranp.errors import InputError
from ranp.experiments.runs import RunFolder, evaluate_run, read_run_summary, read_runs, runs_table

GOLDEN = Path(__file__).parents[2] / "golden" / "0.1"


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))


@pytest.fixture
def stopped_run(tmp_path: Path) -> Path:
    """A run that was stopped after step 7 of 12, with a checkpoint of step 6."""
    return Path(shutil.copytree(GOLDEN / "stopped", tmp_path / "stopped"))


def stored(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_results_are_read_with_the_names_of_today(finished_run: Path) -> None:
    before = stored(finished_run / "result.json")
    (after,) = read_runs([finished_run])
    assert (before["version"], after["version"]) == (1, 2)
    assert after.pop("primary_metric") == before.pop("headline") == "dice"
    assert {**after, "version": 1} == {**before, "run": str(finished_run)}
    cells = {label: cells for label, *cells in runs_table([{**after, "primary_metric": "dice"}]).rows}
    assert cells["dice"] == [f"{before['best']['dice']:.3f}"]


def test_a_run_is_evaluated(finished_run: Path, data: Path) -> None:
    before = stored(finished_run / "evaluation.json")
    found = evaluate_run(finished_run, data)
    assert found["metrics"] == pytest.approx(before["figures"])
    assert (found["step"], found["version"]) == (before["step"], 2)


def test_a_run_is_summarized(finished_run: Path, stopped_run: Path) -> None:
    summary = read_run_summary(finished_run)
    assert summary.name == "run"
    assert summary.state == ""
    assert summary.metrics == ["dice", "dice/Anterior", "dice/Posterior"]
    assert summary.recipe["pruning"]["resource_weight"] is None
    assert "lam" not in summary.recipe["pruning"]
    assert summary.evaluation is not None
    assert summary.evaluation["metrics"] == stored(finished_run / "evaluation.json")["figures"]
    assert summary.pruning is not None
    assert summary.pruning["cost"]["macs"] == stored(finished_run / "pruning.json")["cost"]["macs"]
    assert [row["step"] for row in summary.curve] == [4, 8, 12]
    unfinished = read_run_summary(stopped_run)
    assert (unfinished.result, unfinished.evaluation) == (None, None)
    assert [row["step"] for row in unfinished.curve] == [4]


def test_a_stopped_run_is_resumed_to_the_same_end(stopped_run: Path, finished_run: Path, data: Path) -> None:
    assert torch.load(stopped_run / "last.ckpt", weights_only=True)["progress"]["step"] == 6
    result = run(recipe(), data, stopped_run, resume=True)
    before = stored(finished_run / "result.json")
    for name in ("best", "last"):
        # The files are of another machine: other processors and versions of torch round differently.
        assert metrics(result[name]) == pytest.approx(metrics(before[name]), rel=0.02)
    for row, known in zip(curve(stopped_run), curve(finished_run), strict=True):
        assert numbers(row) == pytest.approx(numbers(known), rel=0.02)
    assert result["steps"] == 12


def numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


def metrics(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "seconds"}


def test_another_recipe_is_still_refused(stopped_run: Path, data: Path) -> None:
    with pytest.raises(InputError, match=r"pruning\.resource_weight: got 15\.0; expected None"):
        run(recipe(pruning__resource_weight=15), data, stopped_run, resume=True)
    with pytest.raises(InputError, match=r"pruning\.budget\.macs: got 0\.4; expected 0\.5"):
        run(recipe(pruning__budget={"macs": 0.4}), data, stopped_run, resume=True)


def test_the_command_resumes_it(stopped_run: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(CONTENT))  # JSON is YAML
    words = ["train", str(path), "--data", str(data), "--out", str(stopped_run), "--resume", "--json"]
    found = CliRunner().invoke(app, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["steps"] == 12


def test_a_newer_version_is_refused(finished_run: Path) -> None:
    path = RunFolder(finished_run).result
    path.write_text(json.dumps({**stored(path), "version": 3}))
    with pytest.raises(ValueError, match=r"result\.json.*newer version of ranp"):
        read_runs([finished_run])
