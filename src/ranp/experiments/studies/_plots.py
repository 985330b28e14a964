"""Plots of a study, drawn from its results alone."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from ranp.experiments.plots import FULL_COLOR, LIGHT_GRAY, METHOD_COLORS, PRUNED_COLOR, name_layers, panels, style_panel
from ranp.experiments.studies._studies import Study, Variant
from ranp.experiments.studies._tables import COSTS, finished
from ranp.experiments.studies.results import Entry, Results, measured

Runs = Mapping[Variant, Sequence[Entry]]
"""Results of the finished runs of every variant that has any."""

Figures = dict[str, Any]
"""Figures of matplotlib by caption."""

DASHES = ("-", "--", ":", "-.")
# How far below the best mean the detailed view of curves begins.
DETAIL = 0.1


def write_plots(study: Study, results: Results, folder: Path) -> dict[str, Path]:
    """Write all plots of a study as PNG files into a folder, created if needed; returns the files by caption."""
    written: dict[str, Path] = {}
    for task in study.tasks:
        for caption, figure in draw(study, results, task).items():
            title = f"{caption}, {task}" if task else caption
            path = folder / f"{study.name}-{title.lower().replace(', ', '-').replace(' ', '-')}.png"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
            written[title] = path
    return written


def draw(study: Study, results: Results, task: str) -> Figures:
    """All plots of a task for which there are results, by caption."""
    runs = {variant: found for variant in study.variants_of(task) if (found := finished(results, variant))}
    figures: Figures = {}
    for kind in study.plots:
        if kind == "batches" and task in results["batches"]:
            figures |= _batches(results["batches"][task])
        elif kind == "curves" and runs:
            figures |= _curves(runs, measured(results, "measured", task))
        elif kind == "sweep" and runs:
            figures |= _sweep(runs)
        elif kind == "layers" and runs:
            figures |= _layers(runs)
    return figures


def _curves(runs: Runs, steps: Mapping[str, Any]) -> Figures:
    """The primary metric against steps, and against time for the variants whose step time is known."""
    metric = next(iter(runs.values()))[0]["result"]["primary_metric"]
    figures = {f"{metric} against steps": _curve_figure(runs, metric, "training steps", dict.fromkeys(runs, 1.0))}
    minutes = {v: steps[v.label]["step_seconds"] / 60 for v in runs if v.label in steps}
    if minutes:
        label = "training time (minutes): number of steps times the measured time of a step"
        timed = {variant: runs[variant] for variant in minutes}
        figures[f"{metric} against time"] = _curve_figure(timed, metric, label, minutes)
    return figures


def _curve_figure(runs: Runs, metric: str, label: str, per_step: Mapping[Variant, float]) -> Any:
    figure, (overview, detail) = panels(14, 5, 1, 2)
    best = 0.0
    for variant, style in _styles(runs).items():
        curves = [{row["step"]: row[metric] for row in entry["curve"]} for entry in runs[variant]]
        for curve in curves if len(curves) > 1 else ():
            steps = [step * per_step[variant] for step in curve]
            overview.plot(steps, list(curve.values()), alpha=0.25, linewidth=0.8, **style)
        # Runs may stop early: the mean extends as far as all seeds do.
        common = [step for step in curves[0] if all(curve.get(step) is not None for curve in curves)]
        means = [statistics.mean(curve[step] for curve in curves) for step in common]
        best = max(best, *means, 0.0)
        for axis in (overview, detail):
            steps = [step * per_step[variant] for step in common]
            axis.plot(steps, means, linewidth=2, label=variant.label if axis is overview else None, **style)
    for axis in (overview, detail):
        axis.set(xlabel=label, xlim=(0, None))
    overview.set_ylim(0, 1)
    detail.set_ylim(best - DETAIL, best + DETAIL / 10)
    style_panel(overview, f"Validation {metric}: mean over seeds; thin lines: single seeds", grid=True)
    style_panel(detail, "Means, detail", grid=True)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _styles(runs: Runs) -> dict[Variant, dict[str, Any]]:
    """One color per method, and dashes for its variants; with a single method, one color per variant."""
    methods = {variant: _method(entries) for variant, entries in runs.items()}
    if len(set(methods.values())) == 1:
        return {variant: {"color": color} for variant, color in zip(runs, METHOD_COLORS.values(), strict=False)}
    dashes = {method: cycle(DASHES) for method in methods.values()}
    return {v: {"color": METHOD_COLORS[method], "linestyle": next(dashes[method])} for v, method in methods.items()}


def _method(entries: Sequence[Entry]) -> str:
    return str(entries[0]["recipe"]["pruning"]["method"])


def _sweep(runs: Runs) -> Figures:
    """Resources kept and the primary metric against sparsity, one line per method."""
    pruned: dict[str, dict[float, Sequence[Entry]]] = {}
    for entries in runs.values():
        if _method(entries) != "none":
            sparsity = entries[0]["recipe"]["pruning"]["budget"]["sparsity"]
            pruned.setdefault(_method(entries), {})[sparsity] = entries
    if not pruned:
        return {}
    full = next((entries for entries in runs.values() if _method(entries) == "none"), ())
    metric = next(iter(runs.values()))[0]["result"]["primary_metric"]
    shown: dict[str, Callable[[Entry], float]] = {f"{label} kept": partial(_kept, name) for label, name, *_ in COSTS}
    shown[metric] = lambda entry: float(entry["result"]["best"][metric])
    figure, axes = panels(11, 7, 2, 2)
    for axis, (title, value) in zip(axes.flat, shown.items(), strict=True):
        for method, points in pruned.items():
            values = [[value(entry) for entry in points[sparsity]] for sparsity in sorted(points)]
            means = [statistics.mean(each) for each in values]
            errors = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
            style = {"color": METHOD_COLORS[method], "marker": "o", "markersize": 4, "capsize": 2, "label": method}
            axis.errorbar(sorted(points), means, yerr=errors, **style)
        if title == metric and full:
            mean = statistics.mean(map(value, full))
            axis.axhline(mean, color=METHOD_COLORS["none"], linewidth=1, label="full")
        axis.set(xlabel="sparsity: fraction of the neurons removed", ylim=(0, None))
        style_panel(axis, title, grid=True)
    axis.legend(frameon=False)
    return {f"Resources and {metric} against sparsity": figure}


def _kept(resource: str, entry: Entry) -> float:
    return float(entry["pruning"]["cost"][resource] / entry["pruning"]["full_cost"][resource])


def _layers(runs: Runs) -> Figures:
    """Mean importance of each layer, before and after reweighting, and the fraction of its neurons that is kept."""
    pruned = {variant: entries for variant, entries in runs.items() if _method(entries) != "none"}
    if not pruned:
        return {}
    layers = list(next(iter(pruned.values()))[0]["pruning"]["full_widths"])
    shown: dict[str, Callable[[str, Entry], float]] = {
        "measured importance, relative to the most important layer": partial(_importance, 0),
        "importance after the reweighting of the method": partial(_importance, -1),
        "neurons kept": lambda layer, e: e["pruning"]["widths"][layer] / e["pruning"]["full_widths"][layer],
    }
    figure, axes = panels(10, 9, len(shown), 1, sharex=True)
    for axis, (title, value) in zip(axes, shown.items(), strict=True):
        for variant, style in _styles(pruned).items():
            means = [statistics.mean(value(layer, entry) for entry in pruned[variant]) for layer in layers]
            if not any(map(math.isnan, means)):
                axis.plot(range(len(layers)), means, marker="o", markersize=4, label=variant.label, **style)
        axis.set_ylim(bottom=0)
        style_panel(axis, title, grid=True)
    name_layers(axis, layers)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return {"Importance and neurons kept per layer": figure}


def _importance(stage: int, layer: str, entry: Entry) -> float:
    """Importance of a layer, relative to the most important one; NaN if there is none."""
    stages = list((entry["pruning"].get("importance") or {}).values())
    if not stages:  # Nothing is scored when the plan of another variant is applied.
        return math.nan
    largest = max(stages[stage].values())
    return float(stages[stage].get(layer, 0.0) / largest) if largest else math.nan


def _batches(found: Mapping[str, Any]) -> Figures:
    """Peak memory against the batch size, with the limit."""
    figure, axis = panels(8, 4.5)
    colors = (METHOD_COLORS["none"], PRUNED_COLOR, FULL_COLOR)
    for (label, entry), color in zip(found["variants"].items(), colors, strict=False):
        peaks = {int(size): peak / 2**20 for size, peak in entry["peaks"].items() if peak is not None}
        sizes, text = sorted(peaks), f"{label}: up to {entry['largest']}"
        axis.plot(sizes, [peaks[size] for size in sizes], color=color, marker="o", label=text)
    axis.axhline(found["limit_bytes"] / 2**20, color=LIGHT_GRAY, linewidth=2, zorder=0)
    axis.set(xlabel="batch size", ylabel="peak memory of training (MiB)", xlim=(0, None), ylim=(0, None))
    axis.legend(frameon=False)
    style_panel(axis, f"Peak memory; horizontal line: the full network at batch size {found['batch']}")
    return {"Peak memory against batch size": figure}
