"""Tables of a study: every cell is a figure of its runs, or says that there is none."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ranp.experiments.runs._compare import NO_METRIC
from ranp.experiments.studies._figures import Entry, Figures
from ranp.experiments.studies._study import Study, Variant

NOTHING = "-"
# More regions or categories than fit a table are left out of it, down to their mean.
_MOST_PARTS = 4


Column = tuple[str, list[str]]
"""A name, and a text for each variant."""


@dataclass(frozen=True)
class Table:
    """Texts.

    Attributes:
        header: Names of the columns.
        rows: One for each variant.
    """

    header: list[str]
    rows: list[list[str]]


def spread(values: Iterable[float], style: str = ".3f") -> str:
    """Mean and, of several values, standard deviation (of a sample).

    Example:
        >>> spread([0.5, 0.7]), spread([0.5]), spread([])
        ('0.600 ± 0.141', '0.500', '-')
    """
    found = list(values)
    if not found:
        return NOTHING
    mean = f"{statistics.mean(found):{style}}"
    return f"{mean} ± {statistics.stdev(found):{style}}" if len(found) > 1 else mean


def finished(figures: Figures, variant: Variant) -> list[Entry]:
    """Entries of a variant's runs that could be run, by seed."""
    runs = figures["runs"].get(variant.label, {})
    return [runs[seed] for seed in sorted(runs, key=int) if "infeasible" not in runs[seed]]


def metric_table(study: Study, figures: Figures, task: str) -> Table:
    """What came out: a row for each variant of a task."""
    variants = study.variants_of(task)
    entries = [finished(figures, variant) for variant in variants]
    columns = [("seeds", [_seeds(figures, variant) for variant in variants]), *_metrics(entries)]
    columns.append(("steps to the best", _column(entries, lambda entry: entry["result"]["best"]["step"], ",.0f")))
    columns.append(("steps trained", _column(entries, lambda entry: entry["result"]["steps"], ",.0f")))
    return _table(variants, columns)


def cost_table(study: Study, figures: Figures, task: str) -> Table:
    """What it costs, counted and measured: a row for each variant of a task."""
    variants = study.variants_of(task)
    entries = [finished(figures, variant) for variant in variants]
    columns = [*_costs(entries), *_measured(figures, task, variants)]
    if not study.trains:
        columns.insert(0, ("seeds", [_seeds(figures, variant) for variant in variants]))
    if any(entry["pruning"].get("guarded") for part in entries for entry in part):
        columns.append(("groups saved from being emptied", _column(entries, _guarded, ".1f")))
    return _table(variants, columns)


def _table(variants: Sequence[Variant], columns: Sequence[Column]) -> Table:
    rows = zip(*(cells for _, cells in columns), strict=True)
    return Table(
        ["variant", *(name for name, _ in columns)],
        [[variant.label, *row] for variant, row in zip(variants, rows, strict=True)],
    )


def metric_names(entries: Sequence[Sequence[Entry]]) -> list[str]:
    """Names of the metric's figures that a table has room for, the primary_metric first."""
    results = [entry["result"] for part in entries for entry in part]
    names = dict.fromkeys(name for result in results for name in (result["primary_metric"], *result["best"]))
    known = [name for name in names if name not in NO_METRIC]
    parts = [name for name in known if "/" in name]
    return [name for name in known if name not in parts or len(parts) <= _MOST_PARTS]


def batch_table(study: Study, figures: Figures, task: str) -> Table:
    """The largest batch of each variant in the same memory."""
    variants = study.variants_of(task)
    found = figures["batches"].get(task, {"variants": {}})["variants"]
    entries = [found.get(variant.label) for variant in variants]

    def cells(text: Callable[[dict[str, Any]], str]) -> list[str]:
        return [NOTHING if entry is None or not entry["largest"] else text(entry) for entry in entries]

    columns = [
        ("largest batch", cells(lambda entry: str(entry["largest"]))),
        ("its peak memory (MiB)", cells(lambda entry: f"{entry['peaks'][str(entry['largest'])] / 2**20:,.1f}")),
        ("samples a second", cells(lambda entry: f"{entry['samples_per_second']:,.2f}")),
    ]
    return _table(variants, columns)


def _seeds(figures: Figures, variant: Variant) -> str:
    runs = figures["runs"].get(variant.label, {})
    possible = len(finished(figures, variant))
    if len(runs) == possible:
        return str(possible) if runs else "none yet"
    return "infeasible" if not possible else f"{possible}, infeasible {len(runs) - possible}"


def _column(entries: Sequence[Sequence[Entry]], value: Callable[[Entry], Any], style: str) -> list[str]:
    """Mean and deviation of a value over the runs of each variant; values of None are left out."""
    return [spread((x for x in map(value, part) if x is not None), style) for part in entries]


def _metrics(entries: Sequence[Sequence[Entry]]) -> list[Column]:
    return [
        (name, _column(entries, lambda entry, name=name: entry["result"]["best"].get(name), ".3f"))  # type: ignore[misc]
        for name in metric_names(entries)
    ]


def _costs(entries: Sequence[Sequence[Entry]]) -> list[Column]:
    named = (
        ("MACs (G)", "macs", 1e9),
        ("parameters (M)", "params", 1e6),
        ("activation memory (MiB)", "activation_bytes", 2**20),
    )
    return [(label, [_cost(part, name, unit) for part in entries]) for label, name, unit in named]


def _cost(entries: Sequence[Entry], name: str, unit: float) -> str:
    """The mean over seeds, and the share of the full network's."""
    if not entries:
        return NOTHING
    value, full = (statistics.mean(entry["pruning"][of][name] for entry in entries) for of in ("cost", "full_cost"))
    return f"{value / unit:,.3f} ({value / full:.1%})"


def _measured(figures: Figures, task: str, variants: Sequence[Variant]) -> list[Column]:
    measured = figures["measured"].get(task)
    if measured is None:
        return []
    found = [measured["variants"].get(variant.label) for variant in variants]
    full = found[0]

    def cell(entry: dict[str, float] | None, name: str, unit: float) -> str:
        if entry is None:
            return NOTHING
        share = "" if full is None else f" ({entry[name] / full[name]:.1%})"
        return f"{entry[name] / unit:,.1f}{share}"

    named = (("training step (ms)", "step_seconds", 1e-3), ("peak memory of training (MiB)", "peak_bytes", 2**20))
    return [(label, [cell(entry, name, unit) for entry in found]) for label, name, unit in named]


def _guarded(entry: Entry) -> float | None:
    groups = entry["pruning"].get("guarded")
    return None if groups is None else len(groups)


def seconds_of(entries: Iterable[Entry]) -> float:
    """Time that runs trained for, together."""
    return math.fsum(entry["result"]["seconds"] for entry in entries)
