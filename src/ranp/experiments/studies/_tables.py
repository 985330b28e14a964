"""Tables of a study: every cell is computed from the results of its runs, or says that there are none."""

import statistics
from collections.abc import Callable, Sequence
from operator import itemgetter, methodcaller
from typing import Any

from ranp.experiments.studies._studies import Study, Variant
from ranp.experiments.studies.results import Entry, Results, measured
from ranp.explorer import NOT_METRICS
from ranp.tables import Table

NO_VALUE = "-"
# A metric with more parts, such as categories, than this is shown without them.
_MAX_PARTS = 4

COSTS = (
    ("MACs", "macs", "G", 1e9),
    ("parameters", "params", "M", 1e6),
    ("activation memory", "activation_bytes", "MiB", 2**20),
)
"""Label, name in results, unit and scale of each cost that is shown."""

Column = tuple[str, list[str]]
"""A name, and one cell per variant."""


def finished(results: Results, variant: Variant) -> list[Entry]:
    """Entries of the finished runs of a variant, by seed; infeasible ones are left out."""
    runs = results["runs"].get(variant.label, {})
    return [runs[seed] for seed in sorted(runs, key=int) if "infeasible" not in runs[seed]]


def metric_names(entries: Sequence[Sequence[Entry]]) -> list[str]:
    """Names of the metric's values that a table shows, the primary metric first."""
    run_results = [entry["result"] for part in entries for entry in part]
    names = dict.fromkeys(name for each in run_results for name in (each["primary_metric"], *each["best"]))
    known = [name for name in names if name not in NOT_METRICS]
    parts = [name for name in known if "/" in name]
    return [name for name in known if name not in parts or len(parts) <= _MAX_PARTS]


def metric_table(study: Study, results: Results, task: str) -> Table:
    """Metrics of the best validation: one row per variant of a task."""
    variants = study.variants_of(task)
    entries = [finished(results, variant) for variant in variants]
    columns = [("seeds", _seeds(results, variants))]
    best = [[entry["result"]["best"] for entry in part] for part in entries]
    columns += [(name, _column(best, methodcaller("get", name))) for name in metric_names(entries)]
    columns.append(("steps to the best", _column(best, itemgetter("step"), ",.0f")))
    columns.append(("steps trained", _column(entries, lambda entry: entry["result"]["steps"], ",.0f")))
    return _table("Metrics", task, variants, columns)


def cost_table(study: Study, results: Results, task: str) -> Table:
    """Costs, counted and measured: one row per variant of a task."""
    variants = study.variants_of(task)
    entries = [finished(results, variant) for variant in variants]
    columns = [] if study.trains else [("seeds", _seeds(results, variants))]
    for label, name, unit, scale in COSTS:
        columns.append((f"{label} ({unit})", [_cost(part, name, scale) for part in entries]))
    columns += _measured(results, task, variants)
    guarded = [[entry["pruning"].get("guarded") for entry in part] for part in entries]
    if any(map(any, guarded)):
        counts = _column(guarded, lambda groups: None if groups is None else len(groups), ".1f")
        columns.append(("groups protected from being emptied", counts))
    return _table("Costs", task, variants, columns)


def batch_table(study: Study, results: Results, task: str) -> Table:
    """The largest batch of each variant in the same memory."""
    variants = study.variants_of(task)
    entries = [measured(results, "batches", task).get(variant.label) for variant in variants]

    def cells(text: Callable[[dict[str, Any]], str]) -> list[str]:
        return [NO_VALUE if entry is None or not entry["largest"] else text(entry) for entry in entries]

    peaks = cells(lambda entry: f"{entry['peaks'][str(entry['largest'])] / 2**20:,.1f}")
    columns = [
        ("largest batch", cells(lambda entry: str(entry["largest"]))),
        ("peak memory at that batch (MiB)", peaks),
        ("samples per second", cells(lambda entry: f"{entry['samples_per_second']:,.2f}")),
    ]
    return _table("Largest batches", task, variants, columns)


def _table(title: str, task: str, variants: Sequence[Variant], columns: Sequence[Column]) -> Table:
    title = f"{title}, {task}" if task else title
    rows = zip((variant.label for variant in variants), *(cells for _, cells in columns), strict=True)
    return Table(title, ["variant", *(name for name, _ in columns)], [list(row) for row in rows])


def _seeds(results: Results, variants: Sequence[Variant]) -> list[str]:
    """How many seeds of each variant have results, and how many of these are infeasible."""
    cells = []
    for variant in variants:
        runs, feasible = len(results["runs"].get(variant.label, {})), len(finished(results, variant))
        if runs == feasible:
            cells.append(str(runs or "none yet"))
        else:
            cells.append(f"{feasible}, infeasible {runs - feasible}" if feasible else "infeasible")
    return cells


def _column(entries: Sequence[Sequence[Any]], value: Callable[[Any], Any], style: str = ".3f") -> list[str]:
    """Mean and sample standard deviation of a value over the runs of each variant, without values of None."""
    cells = []
    for part in entries:
        found = [x for x in map(value, part) if x is not None]
        deviation = f" ± {statistics.stdev(found):{style}}" if len(found) > 1 else ""
        cells.append(f"{statistics.mean(found):{style}}{deviation}" if found else NO_VALUE)
    return cells


def _cost(entries: Sequence[Entry], resource: str, unit: float) -> str:
    """The mean over seeds, and its fraction of the cost of the full network."""
    if not entries:
        return NO_VALUE
    cost, full = (statistics.mean(entry["pruning"][of][resource] for entry in entries) for of in ("cost", "full_cost"))
    return f"{cost / unit:,.3f} ({cost / full:.1%})"


def _measured(results: Results, task: str, variants: Sequence[Variant]) -> list[Column]:
    if task not in results["measured"]:
        return []
    entries = [measured(results, "measured", task).get(variant.label) for variant in variants]

    def cell(entry: dict[str, float] | None, name: str, unit: float) -> str:
        if entry is None:
            return NO_VALUE
        fraction = f" ({entry[name] / entries[0][name]:.1%})" if entries[0] else ""
        return f"{entry[name] / unit:,.1f}{fraction}"

    named = (("training step (ms)", "step_seconds", 1e-3), ("peak memory of training (MiB)", "peak_bytes", 2**20))
    return [(label, [cell(entry, name, unit) for entry in entries]) for label, name, unit in named]
