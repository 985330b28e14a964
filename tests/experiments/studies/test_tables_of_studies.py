"""Tables of a study agree with the files of its runs."""

import copy
import statistics
from dataclasses import replace

from helpers.tiny_studies import BATCHES, MEASURED, TINY, make_request, values_of_runs
from ranp.experiments.studies._tables import batch_table, cost_table, metric_table
from ranp.experiments.studies.page import study_tables
from ranp.experiments.studies.results import Results
from ranp.experiments.studies.running import StudyRequest
from ranp.tables import Table

Done = tuple[StudyRequest, Results]


def cells(table: Table, label: str) -> dict[str, str]:
    return dict(zip(table.header, next(row for row in table.rows if row[0] == label), strict=True))


def test_metrics_are_mean_and_deviation_of_the_runs_files(done: Done) -> None:
    table = metric_table(TINY, done[1], "")
    for label in ("full", "half"):
        row = cells(table, label)
        assert row["seeds"] == "2"
        for name in ("dice", "dice/Anterior", "dice/Posterior"):
            values = values_of_runs(done[0], label, "result.json", "best", name)
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            assert row[name] == f"{mean:.3f} ± {deviation:.3f}"
        steps = values_of_runs(done[0], label, "result.json", "best", "step")
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
                statistics.mean(values_of_runs(done[0], label, "result.json", of, name)) for of in ("cost", "full_cost")
            )
            assert row[column] == f"{cost / unit:,.3f} ({cost / full:.1%})"


def test_measured_values_have_their_fraction_of_the_baseline(done: Done) -> None:
    table = cost_table(TINY, {**done[1], "measured": {"": MEASURED}}, "")
    assert cells(table, "full")["training step (ms)"] == "400.0 (100.0%)"
    assert cells(table, "half")["training step (ms)"] == "100.0 (25.0%)"
    assert cells(table, "half")["peak memory of training (MiB)"] == "50.0 (25.0%)"
    assert cells(table, "nothing")["training step (ms)"] == "-"


def test_groups_that_only_the_guard_kept_are_counted(done: Done) -> None:
    assert "groups protected from being emptied" not in cost_table(TINY, done[1], "").header
    results = copy.deepcopy(done[1])
    results["runs"]["half"]["0"]["pruning"]["guarded"] = ["a", "b"]
    del results["runs"]["half"]["1"]["pruning"]["guarded"]  # of an older run
    assert cells(cost_table(TINY, results, ""), "half")["groups protected from being emptied"] == "2.0"


def test_largest_batches_are_those_measured(done: Done) -> None:
    study = replace(TINY, batches=True)
    results = {**done[1], "batches": {"": BATCHES}}
    table = batch_table(study, results, "")
    assert table.rows == [["full", "2", "100.0", "3.00"], ["half", "-", "-", "-"], ["nothing", "-", "-", "-"]]
    titles = [each.title for each in study_tables(make_request(done[0].out, done[0].data[""], study), results)]
    assert titles == ["Metrics", "Costs", "Largest batches"]
