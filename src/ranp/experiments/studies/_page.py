"""A study's page: question, tables, pictures, circumstances; nothing in it that the figures do not hold."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ranp.experiments.recipes import Recipe
from ranp.experiments.studies._figures import Figures
from ranp.experiments.studies._request import Request
from ranp.experiments.studies._tables import (
    Table,
    batch_table,
    cost_table,
    finished,
    metric_names,
    metric_table,
    seconds_of,
)

NOTES = """\
Metrics are those of each run's best validation, on the samples that the best was chosen by. Mean and standard
deviation are over seeds; costs are means over seeds, in brackets the share of the full network's; one multiply-add
(MAC) is one multiplication and one addition; activation memory is what the operators of one forward pass of one
sample allocate; peak memory of training is what a network and two of its training steps take beside all else in the
process, without what an allocator keeps in reserve."""

WALL_TIME = """\
Time in the pictures is steps times the measured time of a step, not what the clock said: runs may have shared the
machine."""


def tables_of(request: Request, figures: Figures) -> dict[str, Table]:
    """The tables of a study by their titles."""
    study = request.study
    found: dict[str, Table] = {}
    for task in study.tasks:
        of_task = f", {task}" if task else ""
        if study.trains:
            found[f"What came out{of_task}"] = metric_table(study, figures, task)
        found[f"What it costs{of_task}"] = cost_table(study, figures, task)
        if study.batches:
            found[f"Largest batches{of_task}"] = batch_table(study, figures, task)
    return found


def make_page(request: Request, figures: Figures, pictures: Mapping[str, Path], page: Path) -> str:
    """The page as Markdown.

    Args:
        request: Which study.
        figures: All that is known.
        pictures: Files by what they show.
        page: Where the page will lie; pictures are linked relative to it.
    """
    study = request.study
    parts = [f"# {study.title}", study.question]
    for title, table in tables_of(request, figures).items():
        parts += [f"## {title}", markdown(table)]
    parts += _rankings(request, figures)
    parts.append(NOTES)
    for caption, path in pictures.items():
        parts.append(f"![{caption}]({Path(os.path.relpath(path, page.parent)).as_posix()})")
    if any("time" in caption for caption in pictures):
        parts.append(WALL_TIME)
    parts += ["## Circumstances", _bullets(circumstances(request, figures))]
    for title, lines in (("Missing", missing(request, figures)), ("Infeasible", infeasible_runs(figures))):
        if lines:
            parts += [f"## {title}", _bullets(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(table: Table) -> str:
    """A table in Markdown, figures to the right."""
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (table.header, rule, *table.rows))


def circumstances(request: Request, figures: Figures) -> list[str]:
    """How the figures came about: settings, seeds, machines, durations, versions."""
    study, lines = request.study, []
    for task in study.tasks:
        base, name = request.base(task), f" of {task}" if task else ""
        lines.append(
            f"Data{name}: {_settings(base.data)}. Network: {base.network.name}, {_settings(base.network.arguments)}."
        )
        lines.append(_training(base, study.trains))
        entries = [entry for variant in study.variants_of(task) for entry in finished(figures, variant)]
        if study.trains and entries:
            primary_metric, duration = entries[0]["result"]["primary_metric"], _hours(seconds_of(entries))
            lines.append(f"Runs{name}: {len(entries)}, judged by {primary_metric}, trained for {duration}.")
    seeds = sorted({int(seed) for runs in figures["runs"].values() for seed in runs})
    lines.append(f"Seeds: {', '.join(map(str, seeds)) or 'none yet'}. A seed draws weights, scoring and batches.")
    results = [entry["result"] for runs in figures["runs"].values() for entry in runs.values() if "result" in entry]
    if results:
        lines.append(f"Trained on: {_distinct(each.get('hardware') or each['device'] for each in results)}.")
        lines.append(f"With {_distinct(_versions(each['versions']) for each in results)}.")
    for part in ("measured", "batches"):
        for task, found in figures[part].items():
            what = "Steps" if part == "measured" else "Batches"
            lines.append(
                f"{what}{f' of {task}' if task else ''} measured on {found['hardware']}, with "
                f"{_versions(found['versions'])}, batch {found['batch']}, the networks of seed {found['seed']}."
            )
    return lines


def missing(request: Request, figures: Figures) -> list[str]:
    """Runs that have no figures yet, and how far they have come; what has not been measured."""
    study, lines = request.study, []
    for variant in study.variants:
        known = figures["runs"].get(variant.label, {})
        lacking = [seed for seed in range(request.seeds) if str(seed) not in known]
        for state, begun in (("begun, not finished", True), ("not begun", False)):
            seeds = [seed for seed in lacking if request.folder(variant.label, seed).record.exists() == begun]
            if seeds:
                lines.append(f"{variant.label}, seed {', '.join(map(str, seeds))}: {state}")
    steps, batches = ("measured", "time and memory of steps"), ("batches", "batches")
    for part, what in [steps] * study.trains + [batches] * study.batches:
        for task in study.tasks:
            measured = figures[part].get(task, {"variants": {}})["variants"]
            run = [variant.label for variant in study.variants_of(task) if finished(figures, variant)]
            if unmeasured := [label for label in run if label not in measured]:
                lines.append(f"{what} of {', '.join(unmeasured)}: not measured yet (--measure)")
    return lines


def infeasible_runs(figures: Figures) -> list[str]:
    """Runs that cannot be, and why; seeds of one variant with one reason together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for label, runs in figures["runs"].items():
        for seed, entry in runs.items():
            if "infeasible" in entry:
                reasons.setdefault((label, entry["infeasible"]), []).append(seed)
    return [f"{label}, seed {', '.join(seeds)}: {reason}" for (label, reason), seeds in reasons.items()]


def _rankings(request: Request, figures: Figures) -> list[str]:
    """Variants by the mean of their primary_metric, where there is one."""
    lines = []
    for task in request.study.tasks if request.study.trains else ():
        found = {variant.label: finished(figures, variant) for variant in request.study.variants_of(task)}
        names = metric_names(list(found.values()))
        means = {}
        for label, entries in found.items():
            values = [entry["result"]["best"][names[0]] for entry in entries]
            if values and None not in values:
                means[label] = sum(values) / len(values)
        if len(means) > 1:
            order = sorted(means, key=means.__getitem__, reverse=True)
            lines.append(f"By mean {names[0]}: " + ", ".join(f"{label} {means[label]:.3f}" for label in order) + ".")
    return lines


def _training(recipe: Recipe, trains: bool) -> str:
    pruning, training = recipe.pruning, recipe.training
    text = f"Scored on {pruning.batches} batches of {pruning.batch or training.batch} ({pruning.importance} importance)"
    if not trains:
        return f"{text}; {training.loss}."
    length = f"{training.steps:,} steps" if training.steps else f"{training.epochs} epochs"
    often = f"every {training.validate_every} steps" if training.validate_every else "every epoch"
    rule = f", or until {training.patience} validations in a row are no better" if training.patience else ""
    order = ", channels last in memory" if training.channels_last else ""
    return (
        f"{text}. Trained in batches of {training.batch} for {length}{rule}; validated {often}. {training.loss}, "
        f"{training.optimizer}, {training.schedule} rate of {training.rate:g}, weight decay {training.weight_decay:g}"
        f"{order}."
    )


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(str(value) if name == "name" else f"{name} {value}" for name, value in settings.items()) or "as is"


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts)))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} seconds"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
