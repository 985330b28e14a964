"""A study runs what has no results yet, whatever interrupted it before, and nothing twice."""

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
from ranp.errors import InputError
from ranp.experiments.studies import running
from ranp.experiments.studies.results import RESULTS_FILE, Results, read_results
from ranp.experiments.studies.running import StudyRequest, collect, run_study

Done = tuple[StudyRequest, Results]


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a run was begun")

    monkeypatch.setattr(running, "run_recipe", refuse)


def test_every_variant_and_seed_is_an_ordinary_run(done: Done) -> None:
    request, results = done
    for label in ("full", "half"):
        for seed in ("0", "1"):
            folder = request.out / label / f"seed-{seed}"
            entry = results["runs"][label][seed]
            result = json.loads((folder / "result.json").read_text())
            assert entry["result"] == {name: result[name] for name in result if name not in ("format", "version")}
            assert (result["seed"], entry["recipe"]["seed"]) == (int(seed), int(seed))
            assert [row["step"] for row in entry["curve"]] == [2, 4]
            assert entry["curve"][-1]["dice"] == result["last"]["dice"]
            assert entry["pruning"]["full_widths"].keys() == entry["pruning"]["widths"].keys()
    assert json.loads((request.out / RESULTS_FILE).read_text()) == results


def test_a_budget_that_cannot_be_met_is_a_result(done: Done) -> None:
    entries = done[1]["runs"]["nothing"]
    assert set(entries) == {"0", "1"}
    assert all("expected a feasible budget: macs >=" in entry["infeasible"] for entry in entries.values())


@pytest.mark.usefixtures("no_runs")
def test_what_has_results_is_not_run_again(done: Done, tmp_path: Path) -> None:
    """With the folders of the runs, and on another machine that only has the file of results."""
    request, results = done
    again = read_results("tiny", [request.out / RESULTS_FILE])
    run_study(request, again, progress=quiet)
    assert again == results
    shutil.copy(request.out / RESULTS_FILE, tmp_path / RESULTS_FILE)
    elsewhere = make_request(tmp_path / "new", request.data[""])
    known = read_results("tiny", [tmp_path / "new" / RESULTS_FILE, tmp_path / RESULTS_FILE])
    run_study(elsewhere, known, progress=quiet)
    collect(elsewhere, known)
    assert known == results == read_results("tiny", [tmp_path / "new" / RESULTS_FILE])


def test_more_seeds_run_only_what_is_new(done: Done, data: Path, tmp_path: Path) -> None:
    shutil.copytree(done[0].out, tmp_path / "out")
    request = make_request(tmp_path / "out", data, seeds=3, only=("half",))
    results = read_results("tiny", [request.out / RESULTS_FILE])
    before = (tmp_path / "out" / "half" / "seed-0" / "last.ckpt").stat().st_mtime_ns
    run_study(request, results, progress=quiet)
    assert {label: list(runs) for label, runs in results["runs"].items()} == {
        "full": ["0", "1"],
        "nothing": ["0", "1"],
        "half": ["0", "1", "2"],
    }
    assert (tmp_path / "out" / "half" / "seed-0" / "last.ckpt").stat().st_mtime_ns == before


def test_runs_made_without_the_study_are_collected(data: Path, tmp_path: Path) -> None:
    request = make_request(tmp_path, data, seeds=1, only=("half",))
    running.run_recipe(
        request.recipe_of(TINY.variants[1], 0), data, tmp_path / "half" / "seed-0", resume=False, progress=quiet
    )
    results = read_results("tiny", [])
    collect(request, results)
    assert list(results["runs"]) == ["half"]


def test_results_of_other_settings_are_refused(done: Done) -> None:
    other = make_request(done[0].out, done[0].data[""], changes=(*CHANGES, "training.rate=0.5"))
    for act in (lambda: run_study(other, done[1], progress=quiet), lambda: collect(other, done[1])):
        with pytest.raises(InputError, match=r"full.seed-0: training\.rate: got 0\.5; expected 0\.005"):
            act()


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ranp.experiments.studies.results import RESULTS_FILE, read_results
from ranp.experiments.studies.running import run_study
from helpers.tiny_studies import make_request
from helpers.tiny_runs import quiet
request = make_request(Path(sys.argv[1]), Path(sys.argv[2]), seeds=1)
run_study(request, read_results("tiny", [request.out / RESULTS_FILE]), progress=quiet)
"""


def test_a_study_that_is_killed_resumes_where_it_was(done: Done, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out), str(data)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    # The second run has begun: the first one's results must be there, the second's must not be lost.
    deadline = time.monotonic() + 120
    while not (out / "half" / "seed-0" / "pruning.json").exists():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = read_results("tiny", [out / RESULTS_FILE])
    assert "0" in kept["runs"]["full"]
    run_study(make_request(out, data, seeds=1), kept, progress=quiet)
    assert {label: list(runs) for label, runs in kept["runs"].items()} == {
        label: ["0"] for label in ("full", "half", "nothing")
    }
    assert same_outcome(out / "half" / "seed-0", done[0].out / "half" / "seed-0")
