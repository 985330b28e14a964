"""A study runs what has no figures yet, whatever stopped it before, and nothing twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_runs import quiet, same_outcome
from helpers.tiny_studies import CHANGES, TINY, make_request
from ranp.errors import ArtifactError, InputError
from ranp.experiments.studies import _run
from ranp.experiments.studies._figures import FILE, Figures, read_figures
from ranp.experiments.studies._request import Request
from ranp.experiments.studies._run import collect, run_study

Done = tuple[Request, Figures]


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a run was begun")

    monkeypatch.setattr(_run, "run_recipe", refuse)


def test_every_variant_and_seed_is_an_ordinary_run(done: Done) -> None:
    request, figures = done
    for label in ("full", "half"):
        for seed in ("0", "1"):
            folder = request.out / label / f"seed-{seed}"
            entry = figures["runs"][label][seed]
            result = json.loads((folder / "result.json").read_text())
            assert entry["result"] == {name: result[name] for name in result if name not in ("format", "version")}
            assert (result["seed"], entry["recipe"]["seed"]) == (int(seed), int(seed))
            assert [row["step"] for row in entry["curve"]] == [2, 4]
            assert entry["curve"][-1]["dice"] == result["last"]["dice"]
            assert entry["pruning"]["full_widths"].keys() == entry["pruning"]["widths"].keys()
    assert json.loads((request.out / FILE).read_text()) == figures


def test_a_budget_that_cannot_be_met_is_a_figure(done: Done) -> None:
    entries = done[1]["runs"]["nothing"]
    assert set(entries) == {"0", "1"}
    assert all("expected a feasible budget: macs >=" in entry["infeasible"] for entry in entries.values())


@pytest.mark.usefixtures("no_runs")
def test_what_has_figures_is_not_run_again(done: Done, tmp_path: Path) -> None:
    """With the folders, and on another machine, where only the file of figures is."""
    request, figures = done
    again = read_figures("tiny", [request.out / FILE])
    run_study(request, again, tell=quiet)
    assert again == figures
    shutil.copy(request.out / FILE, tmp_path / FILE)
    elsewhere = make_request(tmp_path / "new", request.data[""])
    known = read_figures("tiny", [tmp_path / "new" / FILE, tmp_path / FILE])
    run_study(elsewhere, known, tell=quiet)
    collect(elsewhere, known)
    assert known == figures == read_figures("tiny", [tmp_path / "new" / FILE])


def test_figures_of_several_machines_are_joined(tmp_path: Path) -> None:
    def file(name: str, runs: dict[str, Any], measured: dict[str, Any]) -> Path:
        path = tmp_path / name
        content = {"format": "ranp-study", "version": 1, "study": "tiny", "runs": runs, "measured": measured}
        path.write_text(json.dumps({**content, "batches": {}}))
        return path

    here = file("here", {"full": {"0": "a"}}, {})
    there = file("there", {"full": {"0": "b", "1": "c"}, "half": {"0": "d"}}, {"": "m"})
    found = read_figures("tiny", [here, there, tmp_path / "absent"])
    assert found["runs"] == {"full": {"0": "a", "1": "c"}, "half": {"0": "d"}}
    assert found["measured"] == {"": "m"}
    for text in ("{", "[]", '{"format": "ranp-study", "version": 1, "study": "other"}'):
        here.write_text(text)
        with pytest.raises(ArtifactError, match="expected figures of the study tiny"):
            read_figures("tiny", [here])


def test_more_seeds_run_only_what_is_new(done: Done, data: Path, tmp_path: Path) -> None:
    shutil.copytree(done[0].out, tmp_path / "out")
    request = make_request(tmp_path / "out", data, seeds=3, only=("half",))
    figures = read_figures("tiny", [request.out / FILE])
    before = (tmp_path / "out" / "half" / "seed-0" / "last.ckpt").stat().st_mtime_ns
    run_study(request, figures, tell=quiet)
    assert {label: list(runs) for label, runs in figures["runs"].items()} == {
        "full": ["0", "1"],
        "nothing": ["0", "1"],
        "half": ["0", "1", "2"],
    }
    assert (tmp_path / "out" / "half" / "seed-0" / "last.ckpt").stat().st_mtime_ns == before


def test_runs_made_by_hand_are_taken_over(data: Path, tmp_path: Path) -> None:
    request = make_request(tmp_path, data, seeds=1, only=("half",))
    _run.run_recipe(
        request.recipe_of(TINY.variants[1], 0), data, tmp_path / "half" / "seed-0", resume=False, tell=quiet
    )
    figures = read_figures("tiny", [])
    collect(request, figures)
    assert list(figures["runs"]) == ["half"]


def test_figures_of_other_settings_are_refused(done: Done) -> None:
    other = make_request(done[0].out, done[0].data[""], changes=(*CHANGES, "training.rate=0.5"))
    for act in (lambda: run_study(other, done[1], tell=quiet), lambda: collect(other, done[1])):
        with pytest.raises(InputError, match=r"full.seed-0: training\.rate: got 0\.5; expected 0\.005"):
            act()


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ranp.experiments.studies._figures import FILE, read_figures
from ranp.experiments.studies._run import run_study
from helpers.tiny_studies import make_request
from helpers.tiny_runs import quiet
request = make_request(Path(sys.argv[1]), Path(sys.argv[2]), seeds=1)
run_study(request, read_figures("tiny", [request.out / FILE]), tell=quiet)
"""


def test_a_study_that_is_killed_goes_on_where_it_was(done: Done, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out), str(data)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    # The second run has begun: the first one's figures must be there, the second's must not be lost.
    deadline = time.monotonic() + 120
    while not (out / "half" / "seed-0" / "pruning.json").exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = read_figures("tiny", [out / FILE])
    assert "0" in kept["runs"]["full"]
    run_study(make_request(out, data, seeds=1), kept, tell=quiet)
    assert {label: list(runs) for label, runs in kept["runs"].items()} == {
        label: ["0"] for label in ("full", "half", "nothing")
    }
    assert same_outcome(out / "half" / "seed-0", done[0].out / "half" / "seed-0")
