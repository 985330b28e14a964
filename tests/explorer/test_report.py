"""Reports of pruned networks and of runs: finished, unfinished, damaged, and folders that are neither."""

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
from ranp.explorer import RunSummary, write_report, write_survey
from ranp.explorer._report import script_json
from ranp.files import write_json

Pruned = tuple[Path, ranp.PruneResult]
GOLDEN = Path(__file__).parents[1] / "golden" / "0.1"
TIMES = "\u00d7"
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
    write_json(out / "run.json", {"format": "ranp-run", "version": 2, "recipe": {**recipe, "training": {"steps": 12}}})
    costs = {"cost": result.plan.cost.known(), "full_cost": result.plan.full_cost.known()}
    pruning = {"format": "ranp-pruning", "version": 1, "method": "ranp-f", "seconds": 0.5, **costs}
    write_json(out / "pruning.json", pruning)
    (out / "curve.csv").write_text(CURVE)
    best = {"step": 10, "seconds": 3.0, "loss": 0.7, "rate": 0.005, "dice": 0.5, "dice/A": 0.4}
    result_file = {
        **{"format": "ranp-run", "version": 2, "method": "ranp-f", "seed": 0, "primary_metric": "dice", "best": best},
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


def report(folder: Path, *others: Path) -> str:
    """The report that the command writes."""
    options = [word for path in others for word in ("--compare", str(path))]
    done = CliRunner().invoke(app, ["report", str(folder), *options])
    assert done.exit_code == 0, done.stderr
    return (folder / "report.html").read_text()


def test_a_report_is_self_contained(folder: Path) -> None:
    assert write_report(folder) == folder / "report.html"
    text = (folder / "report.html").read_text()
    assert len(text) < 5_000_000
    apart = re.sub(r'<script type="(application/json|text/plain)".*?</script>', "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!#)[^"']*|@import|url\(""", apart)
    assert ranp.load(folder, model()) is not None


def test_the_costs_are_those_of_the_plan(folder: Path, pruned: Pruned) -> None:
    text = write_report(folder).read_text()
    tiles = dict(re.findall(r'data-resource="(\w+)" data-value="(\d+)"', text))
    assert {name: int(value) for name, value in tiles.items()} == pruned[1].plan.cost.known()
    assert "at most 10% of the multiply-adds; at most 50% of the parameters" in text
    share = 100 * pruned[1].plan.cost.macs / pruned[1].plan.full_cost.macs
    assert f"{share:.1f}% of the multiply-adds" in text


def test_time_and_memory_of_training_lead_where_they_are_known(timed: tuple[Path, Any, Any], tmp_path: Path) -> None:
    folder, graph, plan = timed
    text = write_report(folder, tmp_path / "report.html").read_text()
    cost, full = graph.cost([len(kept) for kept in plan.keep.values()]), graph.cost()
    tiles = dict(re.findall(r'data-resource="(\w+)" data-value="([0-9.]+)"', text))
    assert list(tiles)[:3] == ["step_seconds", "train_bytes", "macs"]
    assert {name: float(value) for name, value in tiles.items()} == cost.known()
    factors = [getattr(full, name) / getattr(cost, name) for name in ("step_seconds", "train_bytes", "macs")]
    assert _headline(text) == (
        f"{factors[0]:.1f}{TIMES} less time for a training step, {factors[1]:.1f}{TIMES} less training memory and "
        f"{factors[2]:.1f}{TIMES} fewer multiply-adds than the full network."
    )
    assert "at most 50% of the training step" in text


def test_without_time_and_memory_the_report_begins_with_multiply_adds(folder: Path) -> None:
    found = _headline(write_report(folder).read_text())
    number = f"[0-9.]+{TIMES}"
    assert re.fullmatch(
        f"{number} fewer multiply-adds and {number} less activation memory than the full network\\.", found
    )


def _headline(text: str) -> str:
    return re.sub("<[^>]+>", "", text.partition('class="headline">')[2].partition("</p>")[0])


def test_without_a_survey_the_report_is_shorter(folder: Path) -> None:
    (folder / "survey.json").unlink()
    text = write_report(folder).read_text()
    assert 'id="widths"' in text
    assert 'id="explorer"' not in text


def test_a_survey_of_another_plan_is_refused(folder: Path, pruned: Pruned) -> None:
    other = pruned[1].survey()
    other["chosen"] = 0
    write_survey(folder, other)
    with pytest.raises(ArtifactError, match=r"survey\.json: belongs to another plan"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_finished_run_shows_its_training(run: Path) -> None:
    text = report(run)
    assert '<option value="dice">dice</option><option value="dice/A">dice/A</option><option value="loss">' in text
    assert re.search(r'"dice": 0.25, "dice/A": null}.*"dice": 0.5, "dice/A": 0.4}', text)
    assert "0.500" in text
    assert "200.0" in text, "milliseconds of a step"
    assert "not finished" not in text


def test_comparison_with_the_full_network(run: Path, pruned: Pruned, tmp_path: Path) -> None:
    cost = pruned[1].plan.full_cost.known()
    full = make_run(tmp_path / "full", pruned, cost=cost, method="none", step_seconds=1.0)
    text = report(run, full)
    assert "200.0 ms of 1,000.0 ms" in text
    assert "5.0\u00d7<small> less" in text
    assert "full network 0.500" in text


def test_comparison_with_an_unfinished_run(run: Path, pruned: Pruned, tmp_path: Path) -> None:
    full = make_run(tmp_path / "full", pruned)
    (full / "result.json").unlink()
    text = report(run, full)
    assert "full is in training: the latest validation was at step 10 of 12." in text
    assert "This run is not finished" not in text


def test_runs_with_the_same_name_are_numbered(run: Path, pruned: Pruned, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    others = [make_run(tmp_path / "other" / "run", pruned), run]
    text = report(run, *others)
    names = ["run", "run (2)", "run (3)"]
    assert re.findall(r'"name": "([^"]*)", "curve"', text) == names
    assert "".join(f'<th scope="col">{name}</th>' for name in names) in text, "in the comparison, too"


UNFINISHED: dict[str, tuple[list[str], str]] = {
    "in training": (["result.json"], "in training: the latest validation was at step 10 of 12"),
    "before the first validation": (["result.json", "curve.csv"], "has not reached its first validation"),
    "without the plan": (["result.json", "curve.csv", "plan"], "has not reached its first validation"),
    "before pruning": (["result.json", "curve.csv", "plan", "pruning.json", "survey.json"], "but not pruned yet"),
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_run_says_so(name: str, run: Path) -> None:
    missing, said = UNFINISHED[name]
    for path in (run / file for file in missing):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    text = report(run)
    assert said in text
    assert "--resume" in text
    assert ("<dt>Result</dt>" in text) == ("plan" not in missing)
    assert ('id="training"' in text) == ("curve.csv" not in missing)
    assert {path: path.read_bytes() for path in before} == before


def changed(path: Path, **fields: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **fields})


def evaluated(run: Path, **fields: Any) -> None:
    """Writes the file of `ranp evaluate`."""
    found = {"step": 1200, "primary_metric": "dice", "metrics": {"dice": 0.8125, "dice/A": None}, "seconds": 1.5}
    write_json(run / "evaluation.json", {"format": "ranp-evaluation", "version": 2, **found, **fields})


def test_an_evaluation_is_shown(run: Path) -> None:
    assert "Results of ranp evaluate" not in report(run)
    evaluated(run)
    text = re.sub(r"<[^>]+>", " ", report(run).partition("Results of ranp evaluate")[2])
    assert re.search(r"weights of step\s+1,200\s+dice\s+0\.812\s+dice/A\s+-", text)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "run.json": lambda run: (run / "run.json").write_text("{"),
    "run.json ": lambda run: (run / "run.json").write_text('{"format": "ranp-run", "version": 2}'),
    "result.json": lambda run: (run / "result.json").write_text('{"format": "ranp-run", "version": 2}'),
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
    "evaluation.json": lambda run: evaluated(run, metrics={"dice": "good"}),
    "evaluation.json ": lambda run: (run / "evaluation.json").write_text("{}"),
    "curve.csv   ": lambda run: (run / "curve.csv").write_text("step,dice\n1,0.5,3,4\n"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_errors_name_the_damaged_file(name: str, run: Path) -> None:
    DAMAGE[name](run)
    found = CliRunner().invoke(app, ["report", str(run)])
    assert found.exit_code == 1
    assert found.stderr.startswith("error: ")
    assert f"{name.strip()}: " in found.stderr
    assert run.name in found.stderr or name == "plan.json"
    assert "bug in ranp" not in found.stderr
    assert not (run / "report.html").exists()


def test_other_folders_are_refused(tmp_path: Path, folder: Path, run: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has neither artifact\.json nor run\.json"):
        write_report(tmp_path)
    with pytest.raises(ArtifactError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_report(folder, tmp_path / "nowhere" / "report.html")
    refused = CliRunner().invoke(app, ["report", str(run), "--compare", str(tmp_path)])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"{tmp_path}/run.json: " in refused.stderr


def test_runs_to_compare_with_can_be_given_by_the_old_name_of_the_option(
    run: Path, tmp_path: Path, pruned: Pruned
) -> None:
    full = make_run(tmp_path / "full", pruned)
    expected = report(run, run, full)
    old = CliRunner().invoke(app, ["report", str(run), "--beside", str(run), "--compare", str(full)])
    assert (old.exit_code, old.stderr) == (0, "warning: --beside is deprecated; use --compare\n")
    assert (run / "report.html").read_text() == expected
    assert "--beside" not in CliRunner().invoke(app, ["report", "--help"]).output


def test_an_earlier_report_is_kept_if_writing_a_new_one_fails(folder: Path) -> None:
    path = write_report(folder)
    before = path.read_bytes()
    (folder / "survey.json").write_text("{}")
    with pytest.raises(ArtifactError):
        write_report(folder)
    assert path.read_bytes() == before


def test_the_command_writes_to_out(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    found = CliRunner().invoke(app, ["report", str(folder), "--out", str(out)])
    assert (found.exit_code, found.stdout.replace("\n", "")) == (0, str(out))
    assert out.read_text().startswith("<!doctype html>")
    assert not (folder / "report.html").exists()
    assert "Example: ranp report" in CliRunner().invoke(app, ["report", "--help"]).stdout


def test_without_plotly_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(RanpError, match=r"pip install 'ranp\[report\]'"):
        write_report(folder)


def test_names_are_escaped(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["data"]["name"] = "<script>alert(1)</script>"
    write_json(run / "run.json", record)
    (run / "curve.csv").write_text(CURVE.replace("dice/A", '"<b>""A"'))
    for name in ("plan", "pruning.json", "result.json", "survey.json"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    moved = run.rename(run.with_name("<i>'run' & $more"))
    text = report(moved)
    assert '<option value="dice">dice</option><option value="&lt;b&gt;&quot;A">' in text
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;i&gt;&#x27;run&#x27; &amp; $more" in text


@pytest.mark.parametrize("name", ["pruned", "run", "stopped"])
def test_folders_of_version_0_1(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    text = report(folder, folder if name != "pruned" else GOLDEN / "run")
    assert 'id="explorer"' in text
    assert 'id="training"' in text
    assert ("Results of ranp evaluate" in text) == (name != "stopped")
    assert ("This run is not finished" in text) == (name == "stopped")


def test_summaries_are_plain_data(folder: Path) -> None:
    """Without the folder of a run."""
    recipe = {"data": {}, "pruning": {}, "training": {"steps": 20}}
    curve = ({"step": 5.0, "seconds": 1.0, "loss": 0.5, "rate": 0.1, "iou": 0.25},)
    run = RunSummary("made up", recipe, None, None, curve)
    assert run.metrics == ["iou"]
    text = write_report(folder, runs=[run]).read_text()
    assert "made up is started, but not pruned yet." in text
    assert '<option value="iou">' in text
    with pytest.raises(ArtifactError, match=r"made up/result\.json: \$\.result is wrong"):
        RunSummary("made up", recipe, None, {"best": {}}, curve)


def test_data_cannot_end_their_script_element() -> None:
    assert script_json("</script>&") == r'"\u003c/script\u003e\u0026"'
