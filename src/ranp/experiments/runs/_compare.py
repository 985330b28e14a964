"""Runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ranp.experiments.runs._folder import RunFolder, read_json

# Of a validation, what is no figure of the metric.
NO_METRIC = {"step", "seconds", "loss", "rate"}


def read_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The results of finished runs, each with its folder's name.

    Raises:
        ArtifactError: One of the folders is no finished run.
    """
    return [{"run": str(folder), **read_json(RunFolder(folder).result)} for folder in folders]


def table_of(runs: Sequence[Mapping[str, Any]]) -> Table:
    """A column for every run: figures of its best validation first, the primary metric on top, then what it cost."""
    table = Table("", *(Path(run["run"]).name for run in runs), title="Runs, by their best validations")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, values in rows_of(runs):
        table.add_row(label, *values)
    return table


def rows_of(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Labels and one text for every run."""
    primary_metrics = dict.fromkeys(run["primary_metric"] for run in runs)
    others = dict.fromkeys(
        name for run in runs for name in run["best"] if name not in NO_METRIC | primary_metrics.keys()
    )
    rows = [("method", [str(run["method"]) for run in runs]), ("seed", [str(run["seed"]) for run in runs])]
    rows += [(name, [figure_text(run["best"].get(name)) for run in runs]) for name in (*primary_metrics, *others)]
    for label, name, unit in (("MACs (G)", "macs", 1e9), ("parameters (M)", "params", 1e6)):
        rows.append((label, [_cost(run, name, unit) for run in runs]))
    rows.append(("activation memory (MiB)", [_cost(run, "activation_bytes", 2**20) for run in runs]))
    rows.append(("training step, measured (ms)", [f"{run['step_seconds'] * 1e3:,.1f}" for run in runs]))
    rows.append(("batch", [str(run["batch"]) for run in runs]))
    rows.append(("steps, best", [f"{run['best']['step']:,}" for run in runs]))
    rows.append(("steps, all", [f"{run['steps']:,}" for run in runs]))
    rows.append(("training (s)", [f"{run['seconds']:,.1f}" for run in runs]))
    rows.append(("of which waiting for data", [f"{run['seconds_waiting'] / run['seconds']:.1%}" for run in runs]))
    rows.append(("pruning (s)", [f"{run['pruning_seconds']:,.1f}" for run in runs]))
    return rows


def figure_text(value: float | None) -> str:
    """A figure of a metric; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _cost(run: Mapping[str, Any], name: str, unit: float) -> str:
    value, full = run["cost"][name], run["full_cost"][name]
    return f"{value / unit:,.3f} ({value / full:.1%})"
