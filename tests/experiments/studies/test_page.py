"""Page, tables and pictures say what the runs' own files say, and nothing else."""

import copy
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_studies import TINY, make_request
from ranp.experiments.studies._figures import Figures
from ranp.experiments.studies._page import make_page, missing, tables_of
from ranp.experiments.studies._pictures import draw, write_pictures
from ranp.experiments.studies._request import Request
from ranp.experiments.studies._study import Study
from ranp.experiments.studies._tables import Table, batch_table, cost_table, metric_table

Done = tuple[Request, Figures]
MEASURED = {
    "hardware": "a machine",
    "versions": {"torch": "2"},
    "seed": 0,
    "batch": 2,
    "variants": {
        "full": {"step_seconds": 0.4, "peak_bytes": 200 * 2**20},
        "half": {"step_seconds": 0.1, "peak_bytes": 50 * 2**20},
    },
}


def cells(table: Table, label: str) -> dict[str, str]:
    return dict(zip(table.header, next(row for row in table.rows if row[0] == label), strict=True))


def of_runs(request: Request, label: str, *path: str) -> list[float]:
    """A figure out of the files of a variant's runs."""
    found = []
    for seed in range(request.seeds):
        folder = request.out / label / f"seed-{seed}"
        value: Any = json.loads((folder / path[0]).read_text())
        for name in path[1:]:
            value = value[name]
        found.append(value)
    return found


def test_metrics_are_mean_and_deviation_of_the_runs_files(done: Done) -> None:
    table = metric_table(TINY, done[1], "")
    for label in ("full", "half"):
        row = cells(table, label)
        assert row["seeds"] == "2"
        for name in ("dice", "dice/Anterior", "dice/Posterior"):
            values = of_runs(done[0], label, "result.json", "best", name)
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            assert row[name] == f"{mean:.3f} ± {deviation:.3f}"
        steps = of_runs(done[0], label, "result.json", "best", "step")
        assert row["steps to the best"] == f"{statistics.mean(steps):,.0f} ± {statistics.stdev(steps):,.0f}"
        assert row["steps trained"] == "4 ± 0"


def test_costs_are_those_of_the_runs_files(done: Done) -> None:
    table = cost_table(TINY, done[1], "")
    for label in ("full", "half"):
        row = cells(table, label)
        for column, name, unit in (
            ("MACs (G)", "macs", 1e9),
            ("parameters (M)", "params", 1e6),
            ("activation memory (MiB)", "activation_bytes", 2**20),
        ):
            cost, full = (
                statistics.mean(of_runs(done[0], label, "result.json", of, name)) for of in ("cost", "full_cost")
            )
            assert row[column] == f"{cost / unit:,.3f} ({cost / full:.1%})"


def test_what_cannot_be_is_named_with_its_reason(done: Done, tmp_path: Path) -> None:
    page = make_page(*done, {}, tmp_path / "page.md")
    assert "| nothing | infeasible | - | - | - | - | - |" in page
    assert re.search(r"## Infeasible\n\n- nothing, seed 0, 1: allocate: got macs=1e-06; expected a feasible", page)


def test_what_is_missing_is_named(done: Done, tmp_path: Path) -> None:
    request, figures = done
    fewer = copy.deepcopy(figures)
    del fewer["runs"]["full"], fewer["runs"]["half"]["1"]
    (tmp_path / "half" / "seed-1").mkdir(parents=True)
    (tmp_path / "half" / "seed-1" / "run.json").touch()
    elsewhere = make_request(tmp_path, request.data[""])
    assert missing(elsewhere, fewer) == [
        "full, seed 0, 1: not begun",
        "half, seed 1: begun, not finished",
        "time and memory of steps of half: not measured yet (--measure)",
    ]
    page = make_page(elsewhere, fewer, {}, tmp_path / "page.md")
    assert "| full | none yet | - | - | - | - | - |" in page
    assert "By mean" not in page
    assert missing(request, {**figures, "measured": {"": MEASURED}}) == []
    assert "## Missing" not in make_page(request, {**figures, "measured": {"": MEASURED}}, {}, tmp_path / "page.md")


def test_nothing_at_all_makes_a_page_too(tmp_path: Path) -> None:
    empty: Figures = {"runs": {}, "measured": {}, "batches": {}}
    request = make_request(tmp_path, tmp_path)
    assert write_pictures(TINY, empty, tmp_path / "images") == {}
    page = make_page(request, empty, {}, tmp_path / "page.md")
    assert page.count("none yet") == 4  # of three variants, and of seeds


def test_variants_are_ordered_by_their_means(done: Done, tmp_path: Path) -> None:
    means = {
        label: statistics.mean(of_runs(done[0], label, "result.json", "best", "dice")) for label in ("full", "half")
    }
    first, second = sorted(means, key=means.__getitem__, reverse=True)
    page = make_page(*done, {}, tmp_path / "page.md")
    assert f"By mean dice: {first} {means[first]:.3f}, {second} {means[second]:.3f}." in page


def test_measured_figures_are_beside_their_share_of_the_first(done: Done) -> None:
    table = cost_table(TINY, {**done[1], "measured": {"": MEASURED}}, "")
    assert cells(table, "full")["training step (ms)"] == "400.0 (100.0%)"
    assert cells(table, "half")["training step (ms)"] == "100.0 (25.0%)"
    assert cells(table, "half")["peak memory of training (MiB)"] == "50.0 (25.0%)"
    assert cells(table, "nothing")["training step (ms)"] == "-"


def test_curves_are_those_of_the_runs_over_steps_and_over_measured_time(done: Done) -> None:
    figures = {**done[1], "measured": {"": MEASURED}}
    drawn = draw(TINY, figures, "")
    assert list(drawn) == ["dice against steps", "dice against time"]
    curves = [json.loads(json.dumps(figures["runs"]["half"][seed]["curve"])) for seed in ("0", "1")]
    mean = [statistics.mean(row["dice"] for row in rows) for rows in zip(*curves, strict=True)]
    for caption, scale in (("dice against steps", 1.0), ("dice against time", 0.1 / 60)):
        whole, close = drawn[caption].axes
        (line,) = [each for each in whole.get_lines() if each.get_label() == "half"]
        assert list(line.get_xdata()) == pytest.approx([2 * scale, 4 * scale])
        assert list(line.get_ydata()) == pytest.approx(mean)
        # The closer view draws means alone, and ends just above the best of them.
        means = [list(each.get_ydata()) for each in close.get_lines()]
        assert len(means) == 2
        assert means[1] == pytest.approx(mean)
        assert close.get_ylim() == pytest.approx((max(map(max, means)) - 0.1, max(map(max, means)) + 0.01))
    assert list(draw(TINY, done[1], "")) == ["dice against steps"]


def test_pictures_are_linked_from_the_page(done: Done, tmp_path: Path) -> None:
    pictures = write_pictures(TINY, done[1], tmp_path / "docs" / "images")
    page = make_page(*done, pictures, tmp_path / "docs" / "results.md")
    links = re.findall(r"!\[(.*)\]\((.*)\)", page)
    assert links == [("dice against steps", "images/tiny-dice-against-steps.png")]
    assert (tmp_path / "docs" / links[0][1]).read_bytes().startswith(b"\x89PNG")


def test_groups_that_only_the_guard_kept_are_counted(done: Done) -> None:
    assert "groups saved from being emptied" not in cost_table(TINY, done[1], "").header
    figures = copy.deepcopy(done[1])
    figures["runs"]["half"]["0"]["pruning"]["guarded"] = ["a", "b"]
    del figures["runs"]["half"]["1"]["pruning"]["guarded"]  # of an older run
    assert cells(cost_table(TINY, figures, ""), "half")["groups saved from being emptied"] == "2.0"


def test_circumstances_are_those_of_the_runs(done: Done, tmp_path: Path) -> None:
    page = make_page(*done, {}, tmp_path / "page.md")
    result = json.loads((done[0].out / "full" / "seed-0" / "result.json").read_text())
    seconds = sum(sum(of_runs(done[0], label, "result.json", "seconds")) for label in ("full", "half"))
    assert f"Runs: 4, judged by dice, trained for {seconds:.0f} seconds." in page
    assert f"Trained on: {result['hardware']}." in page
    assert f"torch {result['versions']['torch']}" in page
    assert "Trained in batches of 2 for 4 steps; validated every 2 steps." in page


def test_the_layers_and_the_sweep_are_drawn_from_the_figures(done: Done) -> None:
    entry = done[1]["runs"]["half"]["0"]
    layers = Study("x", "x", "x", TINY.tasks, TINY.variants, pictures=("layers",))
    ((_, figure),) = draw(layers, done[1], "").items()
    kept = figure.axes[2].get_lines()[0].get_ydata()
    pruning = entry["pruning"]
    other = done[1]["runs"]["half"]["1"]["pruning"]
    for share, layer in zip(kept, pruning["full_widths"], strict=True):
        widths = [each["widths"][layer] / each["full_widths"][layer] for each in (pruning, other)]
        assert share == pytest.approx(statistics.mean(widths))
    measured = figure.axes[0].get_lines()[0].get_ydata()
    assert max(measured) <= 1
    sweep = copy.deepcopy(done[1])
    for each in sweep["runs"]["half"].values():
        each["recipe"]["pruning"]["budget"]["sparsity"] = 0.5
    ((_, figure),) = draw(Study("x", "x", "x", TINY.tasks, TINY.variants, pictures=("sweep",)), sweep, "").items()
    share = [
        each["pruning"]["cost"]["macs"] / each["pruning"]["full_cost"]["macs"]
        for each in sweep["runs"]["half"].values()
    ]
    assert figure.axes[0].get_lines()[0].get_ydata() == pytest.approx([statistics.mean(share)])


def test_batches_are_shown(done: Done) -> None:
    peaks = {"2": 100 * 2**20, "4": 150 * 2**20}
    found = {
        "limit_bytes": 100 * 2**20,
        "batch": 2,
        "variants": {
            "full": {"peaks": peaks, "largest": 2, "samples_per_second": 3.0},
            "half": {"peaks": {"1": None}, "largest": 0, "samples_per_second": None},
        },
    }
    study = Study("x", "x", "x", TINY.tasks, TINY.variants, pictures=("batches",), batches=True)
    figures = {**done[1], "batches": {"": found}}
    table = batch_table(study, figures, "")
    assert table.rows == [["full", "2", "100.0", "3.00"], ["half", "-", "-", "-"], ["nothing", "-", "-", "-"]]
    assert list(draw(study, figures, "")) == ["Peak memory over batches"]
    assert "Largest batches" in tables_of(make_request(done[0].out, done[0].data[""], study), figures)
