"""Pictures of a study, drawn from its figures alone."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranp.experiments.plots import FAINT, FULL_COLOUR, PRUNED_COLOUR, blank_figure, tidy
from ranp.experiments.studies._figures import Entry, Figures
from ranp.experiments.studies._study import Study, Variant
from ranp.experiments.studies._tables import finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette again: a colour for each method, wherever it is drawn.
COLOURS = {
    "none": "#000000",
    "ranp-f": PRUNED_COLOUR,
    "ranp-m": "#E69F00",
    "weighted": "#009E73",
    "vanilla": "#CC79A7",
    "layerwise": "#56B4E9",
    "uniform": FULL_COLOUR,
    "random": "#999999",
    "constant": "#8C6D31",
    "snip": "#F0E442",
}
DASHES = ("-", "--", ":", "-.")
# How far below the best mean the closer view of curves begins.
CLOSE = 0.1

Drawn = dict[str, "Figure"]
"""Pictures by their captions."""


def draw(study: Study, figures: Figures, task: str) -> Drawn:
    """All pictures of a task for which there are figures."""
    kinds: dict[str, Callable[[Study, Figures, str], Drawn]] = {
        "curves": _curves,
        "sweep": _sweep,
        "layers": _layers,
        "batches": _batches,
    }
    found: Drawn = {}
    for kind in study.pictures:
        found |= kinds[kind](study, figures, task)
    return found


def write_pictures(study: Study, figures: Figures, folder: Path) -> dict[str, Path]:
    """Draw and write all pictures of a study.

    Args:
        study: Which.
        figures: All that is known.
        folder: For the files; it is made if needed.

    Returns:
        The files by what they show.
    """
    written: dict[str, Path] = {}
    for task in study.tasks:
        for caption, figure in draw(study, figures, task).items():
            title = f"{caption}, {task}" if task else caption
            path = folder / f"{study.name}-{title.lower().replace(', ', '-').replace(' ', '-')}.png"
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
            written[title] = path
    return written


def _shown(study: Study, figures: Figures, task: str) -> dict[Variant, list[Entry]]:
    """Variants of which there is a run."""
    entries = {variant: finished(figures, variant) for variant in study.variants_of(task)}
    return {variant: found for variant, found in entries.items() if found}


def _styles(shown: Mapping[Variant, Sequence[Entry]]) -> dict[Variant, dict[str, Any]]:
    """A colour for each method, and dashes that tell its variants apart; of one method, a colour for each variant."""
    methods = {variant: str(entries[0]["recipe"]["pruning"]["method"]) for variant, entries in shown.items()}
    if len(set(methods.values())) == 1:
        return {variant: {"color": colour} for variant, colour in zip(shown, COLOURS.values(), strict=False)}
    used: dict[str, int] = {}
    styles: dict[Variant, dict[str, Any]] = {}
    for variant, method in methods.items():
        styles[variant] = {"color": COLOURS[method], "linestyle": DASHES[used.get(method, 0) % len(DASHES)]}
        used[method] = used.get(method, 0) + 1
    return styles


def _curves(study: Study, figures: Figures, task: str) -> Drawn:
    """The primary_metric against steps, and against time if that was measured."""
    shown = _shown(study, figures, task)
    if not shown:
        return {}
    primary_metric = next(iter(shown.values()))[0]["result"]["primary_metric"]
    measured = figures["measured"].get(task, {"variants": {}})["variants"]
    drawn = {
        f"{primary_metric} against steps": _curve_figure(
            shown, primary_metric, "training steps", dict.fromkeys(shown, 1.0)
        )
    }
    timed = {v: measured[v.label]["step_seconds"] / 60 for v in shown if v.label in measured}
    if timed:
        only = {variant: shown[variant] for variant in timed}
        label = "training time (minutes): steps times the measured time of one"
        drawn[f"{primary_metric} against time"] = _curve_figure(only, primary_metric, label, timed)
    return drawn


def _curve_figure(
    shown: Mapping[Variant, Sequence[Entry]], primary_metric: str, label: str, per_step: Mapping[Variant, float]
) -> "Figure":
    figure = blank_figure(14, 5)
    whole, close = figure.subplots(1, 2)
    best = 0.0
    for variant, style in _styles(shown).items():
        curves = [{row["step"]: row[primary_metric] for row in entry["curve"]} for entry in shown[variant]]
        for curve in curves if len(curves) > 1 else ():
            whole.plot(
                [step * per_step[variant] for step in curve], list(curve.values()), alpha=0.25, linewidth=0.8, **style
            )
        # Seeds stop at steps of their own: the mean goes as far as all of them do.
        common = [step for step in curves[0] if all(curve.get(step) is not None for curve in curves)]
        means = [statistics.mean(curve[step] for curve in curves) for step in common]
        best = max(best, *means, 0.0)
        for axis in (whole, close):
            places = [step * per_step[variant] for step in common]
            axis.plot(places, means, linewidth=2, label=variant.label if axis is whole else None, **style)
    for axis in (whole, close):
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
        axis.grid(axis="y", color=FAINT, linewidth=0.8)
    whole.set_ylim(0, 1)
    close.set_ylim(best - CLOSE, best + CLOSE / 10)
    tidy(whole, f"{primary_metric} of the validation: mean over seeds, thin lines each of them")
    tidy(close, "the means from close by")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _sweep(study: Study, figures: Figures, task: str) -> Drawn:
    """What is left of each resource, and the primary_metric, over the sparsity asked for; a line for each method."""
    points: dict[str, list[tuple[float, list[Entry]]]] = {}
    full: list[Entry] = []
    for entries in _shown(study, figures, task).values():
        pruning = entries[0]["recipe"]["pruning"]
        if pruning["method"] == "none":
            full = entries
        else:
            points.setdefault(pruning["method"], []).append((pruning["budget"]["sparsity"], entries))
    if not points:
        return {}
    primary_metric = next(iter(points.values()))[0][1][0]["result"]["primary_metric"]
    figure = blank_figure(11, 7)
    panels: list[tuple[str, Callable[[Entry], float]]] = [
        ("MACs kept", lambda entry: entry["pruning"]["cost"]["macs"] / entry["pruning"]["full_cost"]["macs"]),
        ("parameters kept", lambda entry: entry["pruning"]["cost"]["params"] / entry["pruning"]["full_cost"]["params"]),
        ("activation memory kept", _activations_kept),
        (primary_metric, lambda entry: entry["result"]["best"][primary_metric]),
    ]
    for axis, (title, value) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        for method, found in points.items():
            ordered = sorted(found, key=lambda point: point[0])
            _line(
                axis, [x for x, _ in ordered], [[value(entry) for entry in entries] for _, entries in ordered], method
            )
        if title == primary_metric and full:
            axis.axhline(statistics.mean(map(value, full)), color=COLOURS["none"], linewidth=1, label="full")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("sparsity: share of the neurons removed")
        axis.grid(axis="y", color=FAINT, linewidth=0.8)
        tidy(axis, title)
    axis.legend(frameon=False)
    return {f"Resources and {primary_metric} over sparsities": figure}


def _activations_kept(entry: Entry) -> float:
    cost, full = entry["pruning"]["cost"], entry["pruning"]["full_cost"]
    return float(cost["activation_bytes"] / full["activation_bytes"])


def _line(axis: "Axes", x: Sequence[float], values: Sequence[Sequence[float]], method: str) -> None:
    means = [statistics.mean(each) for each in values]
    errors = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in values]
    axis.errorbar(x, means, yerr=errors, color=COLOURS[method], marker="o", markersize=4, capsize=2, label=method)


def _layers(study: Study, figures: Figures, task: str) -> Drawn:
    """Mean importance of each layer, before and after reweighting, and the share of its neurons that is kept."""
    shown = {v: e for v, e in _shown(study, figures, task).items() if e[0]["recipe"]["pruning"]["method"] != "none"}
    if not shown:
        return {}
    layers = list(next(iter(shown.values()))[0]["pruning"]["full_widths"])
    panels: list[tuple[str, Callable[[Entry, str], float | None]]] = [
        ("importance as measured, share of the largest layer's", lambda entry, layer: _importance(entry, layer, 0)),
        ("the same as the method ranks neurons by", lambda entry, layer: _importance(entry, layer, -1)),
        ("neurons kept", lambda e, layer: e["pruning"]["widths"][layer] / e["pruning"]["full_widths"][layer]),
    ]
    figure = blank_figure(10, 9)
    for axis, (title, value) in zip(figure.subplots(len(panels), 1, sharex=True), panels, strict=True):
        for variant, style in _styles(shown).items():
            means = [_mean(value(entry, layer) for entry in shown[variant]) for layer in layers]
            if None not in means:
                axis.plot(range(len(layers)), means, marker="o", markersize=4, label=variant.label, **style)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", color=FAINT, linewidth=0.8)
        tidy(axis, title)
    axis.set_xticks(range(len(layers)), layers, rotation=40, ha="right", rotation_mode="anchor")
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return {"Importance and neurons kept per layer": figure}


def _importance(entry: Entry, layer: str, stage: int) -> float | None:
    stages = list((entry["pruning"].get("importance") or {}).values())
    if not stages:  # A plan that was taken over: nothing was scored.
        return None
    largest = max(stages[stage].values())
    return float(stages[stage].get(layer, 0.0) / largest) if largest else None


def _mean(values: Any) -> float | None:
    found = list(values)
    return None if None in found else statistics.mean(found)


def _batches(study: Study, figures: Figures, task: str) -> Drawn:
    """Peak memory over batches, with the limit."""
    found = figures["batches"].get(task)
    if found is None:
        return {}
    figure = blank_figure(8, 4.5)
    axis = figure.subplots()
    for (label, entry), colour in zip(found["variants"].items(), (COLOURS["none"], PRUNED_COLOUR), strict=False):
        points = sorted((int(batch), peak / 2**20) for batch, peak in entry["peaks"].items() if peak is not None)
        axis.plot(*zip(*points, strict=True), color=colour, marker="o", label=f"{label}: up to {entry['largest']}")
    axis.axhline(found["limit_bytes"] / 2**20, color=FAINT, linewidth=2, zorder=0)
    axis.set_xlabel("samples a batch")
    axis.set_ylabel("peak memory of training (MiB)")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    tidy(axis, f"Peak memory; the line is what the full network takes at a batch of {found['batch']}")
    return {"Peak memory over batches": figure}
