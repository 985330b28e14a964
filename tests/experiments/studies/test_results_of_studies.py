"""Reading the results of a study: merging files, older versions, and files that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_studies import make_request
from ranp.errors import ArtifactError
from ranp.experiments.studies import STUDIES
from ranp.experiments.studies.page import study_tables, write_page
from ranp.experiments.studies.results import read_results
from ranp.experiments.studies.running import StudyRequest, collect

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "0.1" / "study.json"


def entry(metric: float) -> dict[str, Any]:
    """The part of an entry that every version has."""
    return {"recipe": {"data": {}, "pruning": {"data": {}}}, "metric": metric}


def test_results_of_several_machines_are_merged(tmp_path: Path) -> None:
    def file(name: str, runs: dict[str, Any], measured: dict[str, Any]) -> Path:
        path = tmp_path / name
        content = {"format": "ranp-study", "version": 2, "study": "tiny", "runs": runs, "measured": measured}
        path.write_text(json.dumps({**content, "batches": {}}))
        return path

    a, b, c, d = map(entry, range(4))
    here = file("here", {"full": {"0": a}}, {})
    there = file("there", {"full": {"0": b, "1": c}, "half": {"0": d}}, {"": {"batch": 2}})
    found = read_results("tiny", [here, there, tmp_path / "absent"])
    assert found["runs"] == {"full": {"0": a, "1": c}, "half": {"0": d}}
    assert found["measured"] == {"": {"batch": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": "ranp-study", "version": 1, "study": "tiny", "runs": {"full": {"0": 1}}}',
        '{"format": "ranp-study", "version": 2, "study": "tiny", "runs": {}, "measured": {}}',
        '{"format": "ranp-study", "version": 2, "study": "tiny", "runs": {"full": 1}, "measured": {}, "batches": {}}',
        '{"format": "ranp-study", "version": 3, "study": "tiny", "runs": {}, "measured": {}, "batches": {}}',
        '{"format": "ranp-run", "version": 2, "study": "tiny", "runs": {}, "measured": {}, "batches": {}}',
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"results\.json"):
        read_results("tiny", [tmp_path / "results.json"])


def test_results_of_another_study_are_refused(tmp_path: Path) -> None:
    content = {"format": "ranp-study", "version": 2, "study": "other", "runs": {}, "measured": {}, "batches": {}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="results of the study other, not of tiny"):
        read_results("tiny", [tmp_path / "results.json"])


def test_results_of_0_1_are_upgraded() -> None:
    results = read_results("tiny", [GOLDEN])
    assert results["version"] == 2
    half = results["runs"]["half"]["0"]
    assert half["result"]["primary_metric"] == "dice"
    assert "headline" not in half["result"]
    assert "resource_weight" in half["recipe"]["pruning"]
    assert "lam" not in half["recipe"]["pruning"]


def test_names_of_0_1_change_throughout(tmp_path: Path) -> None:
    recipe = {
        "data": {"name": "decathlon", "planes": True},
        "pruning": {"lam": 15, "data": {"planes": False}},
    }
    content = {
        **{"format": "ranp-study", "version": 1, "study": "initialisation", "measured": {}, "batches": {}},
        "runs": {"vanilla-glorot": {"0": {"recipe": recipe, "infeasible": "no budget"}}},
    }
    (tmp_path / "results.json").write_text(json.dumps(content))
    found = read_results("initialization", [tmp_path / "results.json"])["runs"]["vanilla-glorot"]["0"]["recipe"]
    assert found == {
        "data": {"name": "decathlon", "slices": True},
        "pruning": {"resource_weight": 15, "data": {"slices": False}},
    }


def test_a_study_of_0_1_is_collected_into_tables_and_a_page(tmp_path: Path) -> None:
    """The recipes of the golden file, upgraded, are those of the request; otherwise `collect` would refuse them."""
    request = make_request(tmp_path / "out", tmp_path, seeds=1)
    results = read_results("tiny", [GOLDEN])
    collect(request, results)
    assert read_results("tiny", [tmp_path / "out" / "results.json"]) == results
    metrics, costs = study_tables(request, results)
    assert metrics.rows[1] == ["half", "1", "0.000", "0.000", "0.000", "2", "4"]
    assert costs.rows[1][1] == "0.000 (35.7%)"
    write_page(request, results, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "| half | 1 | 0.000 |" in page
    assert "- nothing, seed 0: allocate: got macs=1e-06" in page
    assert (tmp_path / "images" / "tiny-dice-against-steps.png").exists()


@pytest.mark.parametrize("name", ["hippocampus", "longer"])
def test_the_published_results_are_those_of_todays_recipes(name: str, tmp_path: Path) -> None:
    request = StudyRequest(STUDIES[name], tmp_path, {}, seeds=3)
    collect(request, read_results(name, [ROOT / "benchmarks" / "results" / name / "results.json"]))
