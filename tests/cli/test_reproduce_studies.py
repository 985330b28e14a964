"""`ranp reproduce NAME`, from generated data to the page."""

import json
import re
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from helpers.tiny_studies import CHANGES, TINY
from ranp.cli import app
from ranp.cli._reproduce import command_of
from ranp.errors import InputError, RanpError
from ranp.experiments.studies import STUDIES, RecipeChoice, Study, Task, Variant


def ranp(study: Study, *words: str) -> str:
    command = typer.Typer()
    command.command()(command_of(study))
    found = CliRunner().invoke(command, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


SETTINGS = [word for change in (*CHANGES, "training.steps=2") for word in ("--set", change)]


def test_json_is_what_the_folder_holds(tmp_path: Path) -> None:
    shown = ranp(TINY, "--small", "--out", str(tmp_path / "out"), *SETTINGS, "--only", "half", "--json")
    assert json.loads(shown) == json.loads((tmp_path / "out" / "results.json").read_text())


def test_small_data_are_generated_and_the_page_is_written(tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "docs" / "tiny.md"
    page.parent.mkdir()
    words = ["--small", "--out", str(out), "--page", str(page), *SETTINGS]
    shown = ranp(TINY, *words, "--only", "half")
    assert "half" in shown
    assert "not started" in page.read_text()
    first = (out / "half" / "seed-0" / "result.json").read_bytes()
    ranp(TINY, *words)
    assert (out / "half" / "seed-0" / "result.json").read_bytes() == first
    text = page.read_text()
    assert "not started" not in text
    assert "| half | 1 |" in text
    assert (page.parent / "images" / "tiny-dice-against-steps.png").exists()
    assert (out / "data" / "dataset.json").exists()
    # In another folder, from the file of results alone.
    ranp(
        TINY, "--collect", "--small", "--out", str(tmp_path / "new"), "--results", str(out / "results.json"), *SETTINGS
    )
    assert (tmp_path / "new" / "results.md").read_text().partition("## Missing")[0] == text.partition("## Missing")[0]
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == json.loads((out / "results.json").read_text())


def test_an_unknown_variant_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'half'"):
        ranp(TINY, "--small", "--out", str(tmp_path / "out"), "--only", "hafl")
    assert not (tmp_path / "out").exists()


def test_a_plan_of_another_task_is_applied(tmp_path: Path) -> None:
    task = Task(RecipeChoice("small-decathlon"), RecipeChoice("small-decathlon"), count=6)
    study = Study(
        "two",
        "Two tasks",
        "Can a plan be applied to another task?",
        {"a": task, "b": task},
        (
            Variant("a-own", (), task="a"),
            Variant("b-by-plan-of-a", ("data.size=[8, 8, 16]",), task="b", plan_of="a-own"),
            Variant("b-by-plan-of-nothing", (), task="b", plan_of="nothing"),
            Variant("nothing", ("pruning.budget={macs: 1.0e-6}",), task="a"),
        ),
    )
    out = tmp_path / "out"
    ranp(study, "--small", "--out", str(out), *SETTINGS, "--only", "nothing")
    ranp(study, "--small", "--out", str(out), *SETTINGS)
    results = json.loads((out / "results.json").read_text())["runs"]
    assert results["b-by-plan-of-a"]["0"]["pruning"]["widths"] == results["a-own"]["0"]["pruning"]["widths"]
    assert results["b-by-plan-of-a"]["0"]["recipe"]["pruning"]["plan"] is None  # no path of this machine
    assert results["b-by-plan-of-nothing"]["0"]["infeasible"].startswith("no plan of nothing: allocate: got")
    with pytest.raises(RanpError, match="--only a-own"):
        ranp(study, "--small", "--out", str(tmp_path / "new"), *SETTINGS, "--only", "b-by-plan-of-a")
    with pytest.raises(RanpError, match=r"--data a=FOLDER --data b=FOLDER"):
        ranp(study, "--out", str(out), "--data", str(tmp_path))


def test_lack_of_memory_is_a_result_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    words = ["--small", "--out", str(tmp_path), *SETTINGS, "--only", "half"]
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "__init__", full)
        ranp(TINY, *words)
    assert re.search(r"out of memory: training: .*out of memory \(no room\)", (tmp_path / "results.md").read_text())
    ranp(TINY, *words)
    assert "out of memory" not in (tmp_path / "results.md").read_text()


def test_the_data_folder_is_required(tmp_path: Path) -> None:
    with pytest.raises(RanpError, match=r"--data: got nothing; expected --data FOLDER; or .*--small"):
        ranp(TINY, "--out", str(tmp_path))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_a_command(name: str) -> None:
    found = CliRunner().invoke(app, ["reproduce", name, "--help"], catch_exceptions=False, env={"COLUMNS": "200"})
    assert found.exit_code == 0
    assert f"ranp reproduce {name} --small" in found.output
