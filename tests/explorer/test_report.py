"""`ranp report` on folders of all kinds: whole, half done, damaged, and none at all."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ranp
from helpers.report_pages import model
from ranp.cli import app
from ranp.errors import ArtifactError, RanpError
from ranp.explorer import write_survey
from ranp.explorer._content import read_content, read_run
from ranp.explorer._write import page_of, write_page
from ranp.files import write_json

Pruned = tuple[Path, ranp.PruneResult]
CURVE = "step,seconds,loss,rate,dice,dice/A\n5,1.5,0.9,0.01,0.25,\n10,3.0,0.7,0.005,0.5,0.4\n"


@pytest.fixture
def folder(pruned: Pruned, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pruned[0], tmp_path / "net"))


@pytest.fixture
def run(pruned: Pruned, tmp_path: Path) -> Path:
    """The folder of a finished run, as `ranp train` leaves it."""
    return make_run(tmp_path / "run", pruned)


def make_run(out: Path, pruned: Pruned, **changes: Any) -> Path:
    folder, result = pruned
    out.mkdir()
    shutil.copytree(folder, out / "plan")
    (out / "plan" / "survey.json").rename(out / "survey.json")
    recipe = {"data": {"name": "decathlon"}, "pruning": {"method": "ranp-f", "budget": {"macs": 0.1, "params": 0.5}}}
    write_json(out / "run.json", {"format": "ranp-run", "version": 1, "recipe": {**recipe, "training": {"steps": 12}}})
    costs = {"cost": vars(result.plan.cost), "full_cost": vars(result.plan.full_cost)}
    pruning = {"format": "ranp-pruning", "version": 1, "method": "ranp-f", "seconds": 0.5, **costs}
    write_json(out / "pruning.json", pruning)
    (out / "curve.csv").write_text(CURVE)
    best = {"step": 10, "seconds": 3.0, "loss": 0.7, "rate": 0.005, "dice": 0.5, "dice/A": 0.4}
    result_file = {
        **{"format": "ranp-run", "version": 1, "method": "ranp-f", "seed": 0, "primary_metric": "dice", "best": best},
        **{
            "steps": 12,
            "seconds": 3.5,
            "seconds_waiting": 0.1,
            "step_seconds": 0.2,
            "pruning_seconds": 0.5,
            "batch": 2,
        },
        **costs,
        **changes,
    }
    write_json(out / "result.json", result_file)
    return out


def test_a_page_needs_nothing_but_itself(folder: Path) -> None:
    assert write_page(folder) == folder / "report.html"
    text = (folder / "report.html").read_text()
    assert len(text) < 5_000_000
    apart = re.sub(r'<script type="(application/json|text/plain)".*?</script>', "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!#)[^"']*|@import|url\(""", apart)
    assert ranp.load(folder, model()) is not None


def test_the_figures_are_those_of_the_plan(folder: Path, pruned: Pruned) -> None:
    text = page_of(read_content(folder))
    tiles = dict(re.findall(r'data-resource="(\w+)" data-value="(\d+)"', text))
    assert {name: int(value) for name, value in tiles.items()} == vars(pruned[1].plan.cost)
    assert "at most 10% of the multiply-adds; at most 50% of the parameters" in text
    share = 100 * pruned[1].plan.cost.macs / pruned[1].plan.full_cost.macs
    assert f"{share:.1f}% of the multiply-adds" in text


def test_without_a_survey_there_is_a_smaller_page(folder: Path) -> None:
    (folder / "survey.json").unlink()
    text = page_of(read_content(folder))
    assert 'id="widths"' in text
    assert 'id="explorer"' not in text


def test_a_survey_of_another_plan_is_refused(folder: Path, pruned: Pruned) -> None:
    other = pruned[1].survey()
    other["chosen"] = 0
    write_survey(folder, other)
    with pytest.raises(ArtifactError, match=r"survey\.json: got the survey of another plan"):
        write_page(folder)
    assert not (folder / "report.html").exists()


def test_a_finished_run_shows_its_training(run: Path) -> None:
    content = read_content(run)
    assert [found.state for found in content.runs] == [""]
    assert content.runs[0].figures == ["dice", "dice/A"]
    assert [row["dice/A"] for row in content.runs[0].curve] == [None, 0.4]
    text = page_of(content)
    assert "0.500" in text
    assert "200.0" in text, "milliseconds of a step"
    assert "not finished" not in text


def test_the_full_network_beside_it(run: Path, pruned: Pruned, tmp_path: Path) -> None:
    cost = vars(pruned[1].plan.full_cost)
    full = make_run(tmp_path / "full", pruned, cost=cost, method="none", step_seconds=1.0)
    text = page_of(read_content(run, [full]))
    assert "200.0 ms of 1,000.0 ms" in text
    assert "5.0\u00d7<small> less" in text
    assert "full network 0.500" in text


def test_a_run_beside_it_that_is_half_done(run: Path, pruned: Pruned, tmp_path: Path) -> None:
    full = make_run(tmp_path / "full", pruned)
    (full / "result.json").unlink()
    text = page_of(read_content(run, [full]))
    assert "full is in training: the last validation was at step 10 of 12." in text
    assert "This run is not finished" not in text


def test_runs_of_one_name_are_told_apart(run: Path, pruned: Pruned, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    others = [make_run(tmp_path / "other" / "run", pruned), run]
    assert [found.name for found in read_content(run, others).runs] == ["run", "run (2)", "run (3)"]


HALF_DONE: dict[str, tuple[list[str], str]] = {
    "in training": (["result.json"], "in training: the last validation was at step 10 of 12"),
    "before the first validation": (["result.json", "curve.csv"], "has not reached its first validation"),
    "before the plan was kept": (["result.json", "curve.csv", "plan"], "has not reached its first validation"),
    "before pruning": (["result.json", "curve.csv", "plan", "pruning.json", "survey.json"], "but not pruned yet"),
}


@pytest.mark.parametrize("name", HALF_DONE)
def test_a_run_that_is_half_done_says_so(name: str, run: Path) -> None:
    missing, said = HALF_DONE[name]
    for path in (run / file for file in missing):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    text = write_page(run).read_text()
    assert said in text
    assert "--resume" in text
    assert ("Asked" in text) == ("plan" not in missing)
    assert ('id="training"' in text) == ("curve.csv" not in missing)
    assert {path: path.read_bytes() for path in before} == before


def changed(path: Path, **fields: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **fields})


def evaluated(run: Path, **fields: Any) -> None:
    """What `ranp evaluate` leaves."""
    found = {"step": 1200, "primary_metric": "dice", "figures": {"dice": 0.8125, "dice/A": None}, "seconds": 1.5}
    write_json(run / "evaluation.json", {"format": "ranp-evaluation", "version": 1, **found, **fields})


def test_an_evaluation_is_shown(run: Path) -> None:
    assert "Evaluations" not in write_page(run).read_text()
    evaluated(run)
    text = re.sub(r"<[^>]+>", " ", write_page(run).read_text().partition("Evaluations")[2])
    assert re.search(r"weights of step\s+1,200\s+dice\s+0\.812\s+dice/A\s+-", text)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "run.json": lambda run: (run / "run.json").write_text("{"),
    "run.json ": lambda run: (run / "run.json").write_text('{"format": "ranp-run", "version": 1}'),
    "result.json": lambda run: (run / "result.json").write_text('{"format": "ranp-run", "version": 1}'),
    "result.json ": lambda run: changed(run / "result.json", best=[0.5]),
    "result.json  ": lambda run: changed(run / "result.json", seconds=0),
    "result.json   ": lambda run: changed(run / "result.json", cost={"macs": "many"}),
    "result.json    ": lambda run: changed(run / "result.json", primary_metric=None),
    "run.json  ": lambda run: changed(run / "run.json", recipe={"data": {}, "pruning": {}, "training": []}),
    "pruning.json": lambda run: (run / "pruning.json").write_text("[]"),
    "plan.json": lambda run: (run / "plan" / "plan.json").write_text("{}"),
    "artifact.json": lambda run: (run / "plan" / "artifact.json").unlink(),
    "survey.json": lambda run: (run / "survey.json").write_text("{}"),
    "curve.csv": lambda run: (run / "curve.csv").write_text("step,seconds,dice\n1,2,x\n"),
    "curve.csv ": lambda run: (run / "curve.csv").write_bytes(b"\xff\x00"),
    "curve.csv  ": lambda run: (run / "curve.csv").write_text("step,seconds,dice\n1,,0.5\n"),
    "evaluation.json": lambda run: evaluated(run, figures={"dice": "good"}),
    "evaluation.json ": lambda run: (run / "evaluation.json").write_text("{}"),
    "curve.csv   ": lambda run: (run / "curve.csv").write_text("step,dice\n1,0.5,3,4\n"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_named(name: str, run: Path) -> None:
    DAMAGE[name](run)
    found = CliRunner().invoke(app, ["report", str(run)])
    assert found.exit_code == 1
    assert found.stderr.startswith(f"error: {run}")
    assert f"{name.strip()}: got" in found.stderr
    assert not (run / "report.html").exists()


def test_other_folders_are_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ArtifactError, match=r"got a folder without artifact\.json or run\.json"):
        write_page(tmp_path)
    with pytest.raises(ArtifactError, match="got no folder"):
        write_page(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"run\.json: got no file"):
        write_page(run, beside=[tmp_path])
    with pytest.raises(ArtifactError, match="a place that can be written"):
        write_page(run, tmp_path / "nowhere" / "report.html")


def test_an_earlier_page_stays_if_a_new_one_cannot_be_made(run: Path) -> None:
    path = write_page(run)
    before = path.read_bytes()
    (run / "curve.csv").write_text("step")
    (run / "survey.json").write_text("{}")
    with pytest.raises(ArtifactError):
        write_page(run)
    assert path.read_bytes() == before


def test_the_command_writes_where_it_is_told(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    found = CliRunner().invoke(app, ["report", str(folder), "--out", str(out)])
    assert (found.exit_code, found.stdout.replace("\n", "")) == (0, str(out))
    assert out.read_text().startswith("<!doctype html>")
    assert not (folder / "report.html").exists()
    assert "Example: ranp report" in CliRunner().invoke(app, ["report", "--help"]).stdout


def test_without_plotly_it_is_told_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(RanpError, match=r"pip install 'ranp\[report\]'"):
        write_page(folder)


def test_names_are_escaped(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["data"]["name"] = "<script>alert(1)</script>"
    write_json(run / "run.json", record)
    (run / "curve.csv").write_text(CURVE.replace("dice/A", '"<b>""A"'))
    for name in ("plan", "pruning.json", "result.json", "survey.json"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    moved = run.rename(run.with_name("<i>'run' & $more"))
    text = page_of(read_content(moved))
    assert read_run(moved).figures == ["dice", '<b>"A']
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;i&gt;&#x27;run&#x27; &amp; $more" in text
