"""The whole demo in small, once, and all files that it writes."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import ranp
from ranp.cli import app
from ranp.experiments import demo
from ranp.experiments.data.mni152 import TISSUES
from ranp.experiments.demo import QUICK, comparison, markdown
from ranp.experiments.recipes import read_recipe, recipe_file
from ranp.experiments.runs import read_runs
from ranp.models import UNet3D

WIDTH, SECONDS, VALIDATIONS = 4, 0.5, 2
TINY = replace(
    QUICK,
    changes=(
        f"network.arguments.width={WIDTH}",
        "pruning.min_width=1",
        "pruning.round_to=1",
        "data.validation_patches=3",
        "pruning.batches=2",
        "training.batch=2",
        f"training.seconds={SECONDS}",
        f"training.validations={VALIDATIONS}",
    ),
    timed_steps=1,
)
FILES = {
    "report.json",
    "report.md",
    "dice.png",
    "importance.png",
    "channels.png",
    "segmentation.png",
    "pruned",
    "full.safetensors",
    "runs",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command makes with tiny settings."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ranp.experiments.demo.QUICK", TINY)
        result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(folder), "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert "mean Dice" in result.output
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((out / "report.json").read_text())
    return data


def test_everything_is_there_and_nothing_else(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == FILES
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    for picture in out.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 10_000


def test_the_report_as_json(report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranp.experiments.demo.run", lambda *_, **__: report)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), "--json"])
    assert json.loads(result.stdout) == {**report, "version": 1, "out": str(tmp_path / "out")}


def test_report_has_what_it_promises(report: dict[str, Any]) -> None:
    for name in ("full", "pruned"):
        entry = report[name]
        assert {"params", "macs", "activation_bytes", "step_seconds", "peak_bytes", "dice"} <= entry.keys()
        assert set(entry["dice"]) == {*TISSUES, "mean"}
        assert all(0 <= value <= 1 for value in entry["dice"].values())
        assert min(entry["step_seconds"], entry["peak_bytes"], entry["steps"]) > 0
        assert entry["curve"][0]["seconds"] == 0
        assert len(entry["curve"]) == 1 + VALIDATIONS
        dice = {name: value for name, value in entry["dice"].items() if name != "background"}
        last = {"seconds": entry["training_seconds"], "steps": entry["steps"], "dice": dice}
        assert entry["curve"][-1] == last
    assert report["seed"] == 3
    assert report["settings"]["width"] == WIDTH
    assert report["versions"]["torch"] == version("torch")


def test_costs_are_those_of_the_networks(report: dict[str, Any], out: Path) -> None:
    model = UNet3D(1, len(TISSUES), width=WIDTH)
    pruned = ranp.load(out / "pruned", model)
    for name, network in (("full", model), ("pruned", pruned)):
        assert report[name]["params"] == sum(parameter.numel() for parameter in network.parameters())
    assert 0.03 < report["pruned"]["macs"] / report["full"]["macs"] <= 0.05


def test_both_trained_for_the_same_time(report: dict[str, Any]) -> None:
    for name in ("full", "pruned"):
        # The last step may overrun; on a busy machine a step can take long.
        assert report[name]["training_seconds"] >= SECONDS


def test_the_weights_are_the_trained_ones(out: Path, report: dict[str, Any]) -> None:
    fresh = UNet3D(1, len(TISSUES), width=WIDTH)
    model = UNet3D(1, len(TISSUES), width=WIDTH)
    model.load_state_dict(load_file(out / "full.safetensors"))
    pruned = ranp.load(out / "pruned", fresh)
    # Batch norm counts the training steps.
    assert int(model.encoder[0].norm1.num_batches_tracked) == report["full"]["steps"]
    assert int(pruned.encoder[0].norm1.num_batches_tracked) == report["pruned"]["steps"]


def test_the_page_says_what_the_data_say(out: Path, report: dict[str, Any]) -> None:
    page = (out / "report.md").read_text()
    assert page == markdown(report)
    table = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert [tuple(line) for line in table[-len(comparison(report).rows) :]] == comparison(report).rows
    cells = {line[0]: line[1:3] for line in table}
    for column, name in enumerate(("full", "pruned")):
        entry = report[name]
        assert int(cells["parameters"][column].replace(",", "")) == entry["params"]
        assert int(cells["training steps in the same time"][column]) == entry["steps"]
        for tissue in TISSUES:
            assert float(cells[f"Dice, {tissue}"][column]) == pytest.approx(entry["dice"][tissue], abs=5e-4)
        for label, key, unit in (
            ("MACs of a patch (M)", "macs", 1e6),
            ("activation memory of a patch (MB)", "activation_bytes", 1e6),
            ("training step, measured (ms)", "step_seconds", 1e-3),
            ("peak memory of training, measured (MB)", "peak_bytes", 1e6),
        ):
            shown = float(cells[label][column].replace(",", ""))
            assert shown == pytest.approx(entry[key] / unit, abs=0.51)
    for path in out.glob("*.png"):
        assert f"({path.name})" in page


def test_both_are_ordinary_runs(out: Path, report: dict[str, Any]) -> None:
    full, pruned = read_runs([out / "runs" / name for name in ("full", "pruned")])
    assert (full["method"], pruned["method"]) == ("none", "ranp-f")
    for name, run in (("full", full), ("pruned", pruned)):
        assert (run["steps"], run["seconds"]) == (report[name]["steps"], report[name]["training_seconds"])
        assert run["last"]["dice"] == report[name]["dice"]["mean"]
        assert run["cost"]["macs"] == report[name]["macs"]
    recipes = [json.loads((out / "runs" / name / "run.json").read_text())["recipe"] for name in ("full", "pruned")]
    assert [recipe["training"].pop("rate") for recipe in recipes] == [0.01, 0.03]
    assert recipes[0]["training"] == recipes[1]["training"]


def test_the_networks_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One validation each, until both are finished; a network with fewer validations ends earlier."""
    order: list[str] = []

    def fit(run: Any) -> Iterator[None]:
        for _ in range(run.validations):
            order.append(run.name)
            yield

    monkeypatch.setattr(demo, "fit", fit)
    monkeypatch.setattr(demo, "finish_run", lambda run: order.append(f"{run.name} is finished"))
    monkeypatch.setattr(demo, "_validated", lambda run: {})
    monkeypatch.setattr(demo, "_point", lambda row: row["step"])
    runs: dict[str, Any] = {
        name: SimpleNamespace(name=name, validations=count, state=SimpleNamespace(curve=[{"step": 7}]))
        for name, count in (("full", 2), ("pruned", 3))
    }
    assert demo.train_in_turns(runs) == {"full": [0, 7], "pruned": [0, 7]}
    assert order == ["full", "pruned", "full", "pruned", "pruned", "full is finished", "pruned is finished"]


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranp.experiments.demo.run", lambda *_, **__: pytest.fail("work was done"))
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert isinstance(result.exception, (SystemExit, ranp.RanpError))
    assert "exists" in f"{result.exception} {result.output}"
    assert list(tmp_path.iterdir()) == []


def test_without_out_the_first_free_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def record(folder: Path, *_: Any, **__: Any) -> None:
        seen.append(folder.name)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ranp.experiments.demo.run", record)
    CliRunner().invoke(app, ["demo"])
    (tmp_path / "ranp-demo").mkdir()
    CliRunner().invoke(app, ["demo"])
    (tmp_path / "ranp-demo-2").write_text("")
    CliRunner().invoke(app, ["demo"])
    assert [name.rpartition("-")[0] for name in seen] == [".ranp-demo", ".ranp-demo-2", ".ranp-demo-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranp-demo", "ranp-demo-2"]


def test_the_recipe_takes_as_long_as_the_command_promises() -> None:
    default = read_recipe(recipe_file("demo")).training
    quick = read_recipe(recipe_file("demo"), QUICK.changes).training
    assert default.seconds is not None
    assert quick.seconds is not None
    assert 2 * default.seconds < 4 * 60
    assert 2 * quick.seconds < 60 / 2
    assert (default.validations, quick.validations) == (10, 5)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("slow", [1, 2])
def test_the_faster_number_of_threads_is_taken_and_restored(
    slow: int, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_trial", lambda: time.sleep(0.05 * (torch.get_num_threads() == slow)))
    with demo.quickest_threads(rounds=2) as chosen:
        assert chosen == torch.get_num_threads() == 3 - slow
    assert torch.get_num_threads() == 2


def test_the_number_of_threads_is_restored_after_an_error(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_trial", lambda: time.sleep(0.05 * (torch.get_num_threads() - 1)))

    def fail() -> None:
        with demo.quickest_threads(rounds=1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.get_num_threads() == 2


def test_a_trial_is_short() -> None:
    demo._trial()
    start = time.perf_counter()
    demo._trial()
    assert time.perf_counter() - start < 2
