"""The page of a study: question, tables, plots and environment, all of it from the results."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ranp.experiments.recipes import Recipe
from ranp.experiments.studies._plots import write_plots
from ranp.experiments.studies._tables import batch_table, cost_table, finished, metric_names, metric_table
from ranp.experiments.studies.results import Results, measured
from ranp.experiments.studies.running import StudyRequest
from ranp.files import write_bytes
from ranp.tables import Table

NOTES = """\
Metrics are those of the best validation of each run, on the same samples that the best was selected with. Values are
mean and standard deviation over seeds; costs are means over seeds, with the percentage of the full network in
parentheses. One multiply-add (MAC) is one multiplication and one addition. Activation memory is what the operators of
one forward pass of one sample allocate. Peak memory of training is the memory of the network and of two training steps,
without the rest of the process and without memory that the allocator keeps in reserve."""

TIME_NOTE = """\
Time in the plots is the number of steps times the measured time of a step, because several runs may have shared the
machine."""


def study_tables(request: StudyRequest, results: Results) -> list[Table]:
    """All tables of a study."""
    study = request.study
    shown = [metric_table] * study.trains + [cost_table] + [batch_table] * study.batches
    return [table(study, results, task) for task in study.tasks for table in shown]


def write_page(request: StudyRequest, results: Results, page: Path) -> None:
    """Write the page as Markdown, and its plots into the folder `images` next to it; folders are created if needed."""
    page.parent.mkdir(parents=True, exist_ok=True)
    plots = write_plots(request.study, results, page.parent / "images")
    write_bytes(page, page_text(request, results, plots, page).encode())


def page_text(request: StudyRequest, results: Results, plots: Mapping[str, Path], page: Path) -> str:
    """The page as Markdown, with links to plots (files by caption) relative to the path of the page."""
    parts = [f"# {request.study.title}", request.study.question]
    for table in study_tables(request, results):
        parts += [f"## {table.title}", table.markdown()]
    parts += [*_rankings(request, results), NOTES]
    for caption, path in plots.items():
        parts.append(f"![{caption}]({Path(os.path.relpath(path, page.parent)).as_posix()})")
    if any("time" in caption for caption in plots):
        parts.append(TIME_NOTE)
    parts += ["## Environment", _bullets(environment(request, results))]
    for title, lines in (("Missing", missing(request, results)), ("Infeasible", _infeasible_runs(results))):
        if lines:
            parts += [f"## {title}", _bullets(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def environment(request: StudyRequest, results: Results) -> list[str]:
    """How the results were computed: recipes, seeds, machines, durations, versions."""
    study, lines = request.study, []
    for task in study.tasks:
        base, name = request.base_recipe(task), f" of {task}" if task else ""
        network = f"{base.network.name}, {_settings(base.network.arguments)}"
        lines += [f"Data{name}: {_settings(base.data)}. Network: {network}.", _training(base, study.trains)]
        entries = [entry for variant in study.variants_of(task) for entry in finished(results, variant)]
        if study.trains and entries:
            seconds = math.fsum(entry["result"]["seconds"] for entry in entries)
            duration = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} seconds"
            metric = entries[0]["result"]["primary_metric"]
            lines.append(f"Runs{name}: {len(entries)}, compared by {metric}, trained for {duration} in total.")
    seeds = sorted({int(seed) for runs in results["runs"].values() for seed in runs})
    numbers = ", ".join(map(str, seeds)) or "none yet"
    lines.append(f"Seeds: {numbers}. A seed determines the initial weights, scoring and the order of the batches.")
    trained = [entry["result"] for runs in results["runs"].values() for entry in runs.values() if "result" in entry]
    if trained:
        lines.append(f"Trained on: {_distinct(each.get('hardware') or each['device'] for each in trained)}.")
        lines.append(f"With {_distinct(_settings(each['versions']) for each in trained)}.")
    for part, what in (("measured", "Steps"), ("batches", "Batches")):
        for task, found in results[part].items():
            lines.append(
                f"{what}{f' of {task}' if task else ''} measured on {found['hardware']}, with "
                f"{_settings(found['versions'])}, batch size {found['batch']}, on the networks of seed {found['seed']}."
            )
    return lines


def missing(request: StudyRequest, results: Results) -> list[str]:
    """Runs and measurements that have no results yet."""
    study, lines = request.study, []
    for variant in study.variants:
        known = results["runs"].get(variant.label, {})
        seeds = [seed for seed in range(request.seeds) if str(seed) not in known]
        started = [seed for seed in seeds if request.folder(variant.label, seed).record.exists()]
        not_started = [seed for seed in seeds if seed not in started]
        for state, which in (("started, not finished", started), ("not started", not_started)):
            if which:
                lines.append(f"{variant.label}, seed {', '.join(map(str, which))}: {state}")
    steps, batches = ("measured", "time and memory of steps"), ("batches", "batches")
    for part, what in [steps] * study.trains + [batches] * study.batches:
        for task in study.tasks:
            run = [variant.label for variant in study.variants_of(task) if finished(results, variant)]
            if unmeasured := [label for label in run if label not in measured(results, part, task)]:
                lines.append(f"{what} of {', '.join(unmeasured)}: not measured yet (--measure)")
    return lines


def _infeasible_runs(results: Results) -> list[str]:
    """Infeasible runs and the reasons; seeds of one variant with the same reason together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for label, runs in results["runs"].items():
        for seed, entry in runs.items():
            if "infeasible" in entry:
                reasons.setdefault((label, entry["infeasible"]), []).append(seed)
    return [f"{label}, seed {', '.join(seeds)}: {reason}" for (label, reason), seeds in reasons.items()]


def _rankings(request: StudyRequest, results: Results) -> list[str]:
    """Variants of each task, ordered by the mean of their primary metric."""
    lines = []
    for task in request.study.tasks if request.study.trains else ():
        entries = {variant.label: finished(results, variant) for variant in request.study.variants_of(task)}
        names = metric_names(list(entries.values()))
        found = {label: [entry["result"]["best"][names[0]] for entry in runs] for label, runs in entries.items()}
        means = {label: sum(values) / len(values) for label, values in found.items() if values and None not in values}
        if len(means) > 1:
            order = sorted(means, key=means.__getitem__, reverse=True)
            lines.append(f"By mean {names[0]}: " + ", ".join(f"{label} {means[label]:.3f}" for label in order) + ".")
    return lines


def _training(recipe: Recipe, trains: bool) -> str:
    pruning, training = recipe.pruning, recipe.training
    batch = pruning.batch or training.batch
    scored = f"Scored on {pruning.batches} batches of size {batch} ({pruning.importance} importance)"
    if not trains:
        return f"{scored}; {training.loss}."
    steps = f"{training.steps:,} steps" if training.steps else f"{training.epochs} epochs"
    if training.patience:
        steps += f", or until {training.patience} validations in a row bring no improvement"
    interval = f"every {training.validate_every} steps" if training.validate_every else "every epoch"
    layout = ", channels-last memory format" if training.channels_last else ""
    return (
        f"{scored}. Trained with batch size {training.batch} for {steps}; validated {interval}. {training.loss}, "
        f"{training.optimizer}, {training.schedule} schedule, learning rate {training.rate:g}, weight decay "
        f"{training.weight_decay:g}{layout}."
    )


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(str(value) if name == "name" else f"{name} {value}" for name, value in settings.items()) or "as is"


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts)))


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
