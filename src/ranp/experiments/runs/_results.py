"""Results of runs: a table of finished runs, and a summary of one that may be unfinished."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ranp.experiments.runs._folder import RunFolder
from ranp.explorer import NOT_METRICS, RunSummary
from ranp.tables import Table, metric_text


def read_run_summary(folder: Path) -> RunSummary:
    """Read a run, finished or not, as plain data; an `ArtifactError` if it is none or a file in it is damaged."""
    files = RunFolder(folder)
    return RunSummary(
        name=folder.resolve().name,
        recipe=files.read_recipe(),
        pruning=files.read(files.pruning) if files.pruning.exists() else None,
        result=files.read(files.result) if files.result.exists() else None,
        curve=files.read_curve() if files.curve.exists() else (),
        evaluation=files.read(files.evaluation) if files.evaluation.exists() else None,
    )


def read_runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The results of finished runs, each with its folder's name under `run`.

    Raises:
        ArtifactError: One of the folders is not that of a finished run.
    """
    return [{"run": str(files.path), **files.read(files.result)} for files in map(RunFolder, folders)]


def runs_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """A table with a column for each run that `read_runs` returned: metrics of its best validation, costs and times."""
    primary = dict.fromkeys(run["primary_metric"] for run in runs)
    others = dict.fromkeys(name for run in runs for name in run["best"] if name not in NOT_METRICS | primary.keys())
    rows = {
        "method": [str(run["method"]) for run in runs],
        "seed": [str(run["seed"]) for run in runs],
        **{name: [metric_text(run["best"].get(name)) for run in runs] for name in (*primary, *others)},
        "MACs (G)": [_cost(run, "macs", 1e9) for run in runs],
        "parameters (M)": [_cost(run, "params", 1e6) for run in runs],
        "activation memory (MiB)": [_cost(run, "activation_bytes", 2**20) for run in runs],
        "training step, measured (ms)": [f"{run['step_seconds'] * 1e3:,.1f}" for run in runs],
        "batch": [str(run["batch"]) for run in runs],
        "steps, best": [f"{run['best']['step']:,}" for run in runs],
        "steps, all": [f"{run['steps']:,}" for run in runs],
        "training (s)": [f"{run['seconds']:,.1f}" for run in runs],
        "of which waiting for data": [f"{run['seconds_waiting'] / run['seconds']:.1%}" for run in runs],
        "pruning (s)": [f"{run['pruning_seconds']:,.1f}" for run in runs],
    }
    header = ("", *(Path(run["run"]).name for run in runs))
    return Table("Runs, at their best validation", header, [(label, *texts) for label, texts in rows.items()])


def _cost(run: Mapping[str, Any], name: str, unit: float) -> str:
    value, full = run["cost"][name], run["full_cost"][name]
    return f"{value / unit:,.3f} ({value / full:.1%})"
