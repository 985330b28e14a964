"""What a run is worth, judged anew, and runs side by side."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from helpers.tiny_runs import CONTENT, recipe, run
from ranp.cli import app
from ranp.errors import ArtifactError, RanpError
from ranp.experiments import recipes
from ranp.experiments.runs import RunFolder, best_model, evaluate_run, read_runs, run_recipe, runs_table
from ranp.experiments.runs.state import TrainingState, write_best

Finished = tuple[Path, dict[str, Any]]


def rows_of(runs: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The table's cells by label."""
    return {label: list(cells) for label, *cells in runs_table(runs).rows}


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def test_an_evaluation_repeats_the_best_validation(copy: Path, finished: Finished, data: Path) -> None:
    found = evaluate_run(copy, data)
    best = finished[1]["best"]
    assert found["metrics"] == pytest.approx({name: best[name] for name in found["metrics"]})
    assert set(found["metrics"]) == {"dice", "dice/Anterior", "dice/Posterior"}
    assert found["step"] == best["step"]
    assert json.loads((copy / "evaluation.json").read_text()) == found


def test_an_evaluation_agrees_with_the_metric_by_hand(copy: Path, data: Path) -> None:
    bundle = recipe().data_set().open(data)
    model = best_model(RunFolder(copy), recipe(), bundle).eval()
    with torch.no_grad():  # Weights that tell the two labels apart at random, and do not know the background.
        model.head.weight.zero_()[1].normal_()
        model.head.bias.copy_(torch.tensor([-100.0, 0.0, 0.0]))
        inputs = torch.stack([image for image, _ in (bundle.evaluation[index] for index in range(2))])
        model.head.bias[1] = -model(inputs)[:, 1].median()
    write_best(copy / "best.safetensors", model, {"step": 5, "dice": 0.0})
    metric = bundle.metric()
    with torch.no_grad():
        for index in range(len(bundle.evaluation)):  # type: ignore[arg-type]
            inputs, targets = bundle.evaluation[index]
            metric.update(model(inputs[None]), targets[None])
    expected = {name: float(value) for name, value in metric.compute().items()}
    assert min(expected.values()) > 0
    assert evaluate_run(copy, data)["metrics"] == pytest.approx(expected)


def test_it_is_the_best_weights_that_are_evaluated(copy: Path, data: Path) -> None:
    model = best_model(RunFolder(copy), recipe(), recipe().data_set().open(data))
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    write_best(copy / "best.safetensors", model, {"step": 5, "dice": 0.0})
    found = evaluate_run(copy, data)
    assert found["metrics"]["dice/Posterior"] == 0 < found["metrics"]["dice/Anterior"]
    assert found["step"] == 5


def test_no_run_and_no_weights_are_errors(copy: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json: there is no such file"):
        evaluate_run(tmp_path, data)
    (copy / "best.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"best\.safetensors"):
        evaluate_run(copy, data)
    (copy / "result.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"result\.json: is not a ranp-run file"):
        read_runs([copy])


def test_runs_side_by_side(finished: Finished, data: Path, tmp_path: Path) -> None:
    run(recipe(pruning__method="none", training__steps=2), data, tmp_path / "full")
    runs = read_runs([tmp_path / "full", finished[0]])
    rows = rows_of(runs)
    assert rows["method"] == ["none", "ranp-f"]
    assert list(rows)[2] == "dice"
    assert [float(value) for value in rows["dice"]] == pytest.approx([run["best"]["dice"] for run in runs], abs=5e-4)
    assert rows["MACs (G)"][0].endswith("(100.0%)")
    for label, name, unit in (("MACs (G)", "macs", 1e9), ("activation memory (MiB)", "activation_bytes", 2**20)):
        for text, entry in zip(rows[label], runs, strict=True):
            assert float(text.split()[0]) == pytest.approx(entry["cost"][name] / unit, abs=5e-4)
    assert rows["steps, all"] == ["2", "12"]


def test_figures_that_only_one_run_has_are_shown(finished: Finished) -> None:
    one = {"run": "one", **finished[1]}
    other = {
        **one,
        "primary_metric": "top1",
        "best": {"step": 1, "seconds": 1.0, "loss": 1.0, "rate": 1.0, "top1": None},
    }
    rows = rows_of([one, other])
    assert rows["top1"] == ["-", "-"]
    assert rows["dice"][1] == "-" != rows["dice"][0]


def test_the_commands_from_data_to_comparison(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(CONTENT))  # JSON is YAML
    folder, out = str(tmp_path / "data"), str(tmp_path / "out")

    def ranp(*words: str) -> str:
        found = CliRunner().invoke(app, words, catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.stdout

    def stored(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(Path(out, name).read_text())
        return content

    changes = ("--seed", "3", "--set", "training.steps=2")
    ranp("data", "generate", str(path), "--out", folder, "--count", "6")
    assert "No file is missing or damaged" in ranp("data", "check", str(path), "--data", folder)
    shown = ranp("train", str(path), "--data", folder, "--out", out, *changes)
    assert "dice/Anterior" in shown
    assert "dice: 0." in ranp("evaluate", out, "--data", folder)
    judged = json.loads(ranp("evaluate", out, "--data", folder, "--json"))
    assert judged.items() >= {**stored("evaluation.json"), "format": "ranp-evaluate", "version": 1, "run": out}.items()
    assert "ranp-f" in ranp("compare", out, out)
    (entry,) = json.loads(ranp("compare", out, "--json"))["runs"]
    assert (entry["run"], entry["seed"], entry["steps"]) == (out, 3, 2)
    again = json.loads(ranp("train", str(path), "--data", folder, "--out", out, "--resume", *changes, "--json"))
    assert again.items() >= {**stored("result.json"), "format": "ranp-train", "version": 1, "run": out}.items()
    next(Path(folder, "imagesTr").iterdir()).unlink()
    found = CliRunner().invoke(app, ["data", "check", str(path), "--data", folder])
    assert found.exit_code == 1
    assert "the file is missing" in found.output


@pytest.mark.parametrize("package", ["pydantic", "yaml", "lightning", "tensorboard"])
def test_a_package_that_is_missing_is_named(
    package: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(CONTENT))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RanpError, match=rf"the package {package} is not installed.*pip install 'ranp\[train\]'"):
        run_recipe(recipes.read_recipe(path), data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ties_go_to_the_earlier_validation_and_no_number_is_worst() -> None:
    state = TrainingState()
    rows = [{"step": step, "dice": dice} for step, dice in enumerate([None, 0.2, 0.2, None, 0.1])]
    assert [state.add_row(row, "dice") for row in rows] == [True, True, False, False, False]
    assert state.best == rows[1]
    assert state.validations_since_best() == 3
