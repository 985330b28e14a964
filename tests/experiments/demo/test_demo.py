"""The whole demo in small, once, and everything it leaves behind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import ranp
from ranp.cli import app
from ranp.cli._demo import demo
from ranp.experiments.data.mni152 import TISSUES
from ranp.experiments.demo import QUICK
from ranp.experiments.demo._pipeline import prepare, prune
from ranp.experiments.demo._report import markdown, rows
from ranp.models import UNet3D

TINY = replace(
    QUICK,
    width=4,
    patch=16,
    batch=2,
    scoring_batches=2,
    total_seconds=0.0,
    least_seconds=0.5,
    checks=2,
    timed_steps=1,
    validation_patches=3,
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
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command makes with tiny settings."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ranp.experiments.demo.QUICK", TINY)
        result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(folder), "--seed", "3"])
    assert result.exit_code == 0
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
    assert json.loads(result.stdout) == {**report, "out": str(tmp_path / "out")}


def test_report_has_what_it_promises(report: dict[str, Any]) -> None:
    for name in ("full", "pruned"):
        entry = report[name]
        assert {"params", "macs", "activation_bytes", "step_seconds", "peak_bytes", "dice"} <= entry.keys()
        assert set(entry["dice"]) == {*TISSUES, "mean"}
        assert all(0 <= value <= 1 for value in entry["dice"].values())
        assert min(entry["step_seconds"], entry["peak_bytes"], entry["steps"]) > 0
        assert entry["curve"][0]["seconds"] == 0
        assert len(entry["curve"]) == 1 + TINY.checks
        assert entry["curve"][-1] == {
            "seconds": entry["training_seconds"],
            "steps": entry["steps"],
            "dice": entry["dice"],
        }
    assert report["seed"] == 3
    assert report["settings"]["width"] == TINY.width
    assert report["versions"]["torch"] == torch.__version__


def test_costs_are_those_of_the_networks(report: dict[str, Any], out: Path) -> None:
    model = UNet3D(1, len(TISSUES), width=TINY.width)
    pruned = ranp.load(out / "pruned", model)
    for name, network in (("full", model), ("pruned", pruned)):
        assert report[name]["params"] == sum(parameter.numel() for parameter in network.parameters())
    assert 0.03 < report["pruned"]["macs"] / report["full"]["macs"] <= TINY.macs


def test_both_trained_for_the_same_time(report: dict[str, Any]) -> None:
    for name in ("full", "pruned"):
        # The last step may overrun; on a busy machine a step can take long.
        assert report[name]["training_seconds"] >= TINY.least_seconds


def test_the_weights_are_the_trained_ones(out: Path, report: dict[str, Any]) -> None:
    fresh = UNet3D(1, len(TISSUES), width=TINY.width)
    model = UNet3D(1, len(TISSUES), width=TINY.width)
    model.load_state_dict(load_file(out / "full.safetensors"))
    pruned = ranp.load(out / "pruned", fresh)
    # Batch norm counts the training steps.
    assert int(model.encoder[0].norm1.num_batches_tracked) == report["full"]["steps"]
    assert int(pruned.encoder[0].norm1.num_batches_tracked) == report["pruned"]["steps"]


def test_the_page_says_what_the_data_say(out: Path, report: dict[str, Any]) -> None:
    page = (out / "report.md").read_text()
    assert page == markdown(report)
    table = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert [tuple(line) for line in table[-len(rows(report)) :]] == rows(report)
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


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranp.experiments.demo.run", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(ranp.RanpError, match="a path that exists"):
        demo(out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_out_the_first_free_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def record(folder: Path, *_: Any, **__: Any) -> None:
        seen.append(folder)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ranp.experiments.demo.run", record)
    (tmp_path / "ranp-demo").mkdir()
    with pytest.raises(KeyboardInterrupt):
        demo()
    assert seen[0].name.startswith(".ranp-demo-2-")
    assert [path.name for path in tmp_path.iterdir()] == ["ranp-demo"]


def test_same_seed_same_plan(out: Path) -> None:
    def tell(*_: Any) -> None:
        pass

    plans = [
        prune(prepare(TINY, tell), TINY, seed=seed, device=torch.device("cpu"), tell=tell)[1].plan.to_json()
        for seed in (3, 4)
    ]
    assert plans[0] == (out / "pruned" / "plan.json").read_text()
    assert plans[1] != plans[0]
