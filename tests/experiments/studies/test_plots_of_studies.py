"""Plots of a study show the results of its runs."""

import copy
import json
import statistics
from dataclasses import replace

import pytest

from helpers.tiny_studies import BATCHES, MEASURED, TINY
from ranp.experiments.studies._plots import draw
from ranp.experiments.studies.results import Results
from ranp.experiments.studies.running import StudyRequest

Done = tuple[StudyRequest, Results]


def test_curves_are_those_of_the_runs_over_steps_and_over_measured_time(done: Done) -> None:
    results = {**done[1], "measured": {"": MEASURED}}
    drawn = draw(TINY, results, "")
    assert list(drawn) == ["dice against steps", "dice against time"]
    curves = [json.loads(json.dumps(results["runs"]["half"][seed]["curve"])) for seed in ("0", "1")]
    mean = [statistics.mean(row["dice"] for row in rows) for rows in zip(*curves, strict=True)]
    for caption, scale in (("dice against steps", 1.0), ("dice against time", 0.1 / 60)):
        overview, detail = drawn[caption].axes
        (line,) = [each for each in overview.get_lines() if each.get_label() == "half"]
        assert list(line.get_xdata()) == pytest.approx([2 * scale, 4 * scale])
        assert list(line.get_ydata()) == pytest.approx(mean)
        # The detailed view shows the means alone, and ends just above the best of them.
        means = [list(each.get_ydata()) for each in detail.get_lines()]
        assert len(means) == 2
        assert means[1] == pytest.approx(mean)
        assert detail.get_ylim() == pytest.approx((max(map(max, means)) - 0.1, max(map(max, means)) + 0.01))
    assert list(draw(TINY, done[1], "")) == ["dice against steps"]


def test_the_layers_and_the_sweep_are_drawn_from_the_results(done: Done) -> None:
    entry = done[1]["runs"]["half"]["0"]
    layers = replace(TINY, plots=("layers",))
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
    ((_, figure),) = draw(replace(TINY, plots=("sweep",)), sweep, "").items()
    share = [
        each["pruning"]["cost"]["macs"] / each["pruning"]["full_cost"]["macs"]
        for each in sweep["runs"]["half"].values()
    ]
    assert figure.axes[0].get_lines()[0].get_ydata() == pytest.approx([statistics.mean(share)])


def test_batches_are_shown_with_the_limit(done: Done) -> None:
    results = {**done[1], "batches": {"": BATCHES}}
    study = replace(TINY, plots=("batches",), batches=True)
    ((caption, figure),) = draw(study, results, "").items()
    assert caption == "Peak memory against batch size"
    full, half, limit = figure.axes[0].get_lines()
    assert (list(full.get_xdata()), list(full.get_ydata())) == ([2, 4], [100, 150])
    assert list(half.get_xdata()) == []
    assert set(limit.get_ydata()) == {100}
