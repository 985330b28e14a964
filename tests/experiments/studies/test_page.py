"""The page of a study agrees with the files of its runs."""

import copy
import json
import re
import statistics
from pathlib import Path

from helpers.tiny_studies import MEASURED, TINY, make_request, values_of_runs
from ranp.experiments.studies.page import missing, page_text, write_plots
from ranp.experiments.studies.results import Results
from ranp.experiments.studies.running import StudyRequest

Done = tuple[StudyRequest, Results]


def test_infeasible_runs_are_listed_with_the_reason(done: Done, tmp_path: Path) -> None:
    page = page_text(*done, {}, tmp_path / "page.md")
    assert "| nothing | infeasible | - | - | - | - | - |" in page
    assert re.search(r"## Infeasible\n\n- nothing, seed 0, 1: allocate: got macs=1e-06; expected a feasible", page)


def test_missing_runs_are_listed(done: Done, tmp_path: Path) -> None:
    request, results = done
    fewer = copy.deepcopy(results)
    del fewer["runs"]["full"], fewer["runs"]["half"]["1"]
    (tmp_path / "half" / "seed-1").mkdir(parents=True)
    (tmp_path / "half" / "seed-1" / "run.json").touch()
    elsewhere = make_request(tmp_path, request.data[""])
    assert missing(elsewhere, fewer) == [
        "full, seed 0, 1: not started",
        "half, seed 1: started, not finished",
        "time and memory of steps of half: not measured yet (--measure)",
    ]
    page = page_text(elsewhere, fewer, {}, tmp_path / "page.md")
    assert "| full | none yet | - | - | - | - | - |" in page
    assert "By mean" not in page
    assert missing(request, {**results, "measured": {"": MEASURED}}) == []
    assert "## Missing" not in page_text(request, {**results, "measured": {"": MEASURED}}, {}, tmp_path / "page.md")


def test_a_page_without_any_results(tmp_path: Path) -> None:
    empty: Results = {"runs": {}, "measured": {}, "batches": {}}
    request = make_request(tmp_path, tmp_path)
    assert write_plots(TINY, empty, tmp_path / "images") == {}
    page = page_text(request, empty, {}, tmp_path / "page.md")
    assert page.count("none yet") == 4  # of three variants, and of seeds


def test_variants_are_ordered_by_their_means(done: Done, tmp_path: Path) -> None:
    means = {
        label: statistics.mean(values_of_runs(done[0], label, "result.json", "best", "dice"))
        for label in ("full", "half")
    }
    first, second = sorted(means, key=means.__getitem__, reverse=True)
    page = page_text(*done, {}, tmp_path / "page.md")
    assert f"By mean dice: {first} {means[first]:.3f}, {second} {means[second]:.3f}." in page


def test_the_environment_is_that_of_the_runs(done: Done, tmp_path: Path) -> None:
    page = page_text(*done, {}, tmp_path / "page.md")
    result = json.loads((done[0].out / "full" / "seed-0" / "result.json").read_text())
    seconds = sum(sum(values_of_runs(done[0], label, "result.json", "seconds")) for label in ("full", "half"))
    assert f"Runs: 4, compared by dice, trained for {seconds:.0f} seconds in total." in page
    assert f"Trained on: {result['hardware']}." in page
    assert f"torch {result['versions']['torch']}" in page
    assert "Trained with batch size 2 for 4 steps; validated every 2 steps." in page


def test_plots_are_linked_from_the_page(done: Done, tmp_path: Path) -> None:
    plots = write_plots(TINY, done[1], tmp_path / "docs" / "images")
    page = page_text(*done, plots, tmp_path / "docs" / "results.md")
    links = re.findall(r"!\[(.*)\]\((.*)\)", page)
    assert links == [("dice against steps", "images/tiny-dice-against-steps.png")]
    assert (tmp_path / "docs" / links[0][1]).read_bytes().startswith(b"\x89PNG")
