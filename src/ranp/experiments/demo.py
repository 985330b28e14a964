"""The demo: prune a 3D U-Net before training, on a real MRI, and compare it with the full network.

The full and the pruned network are two runs of `recipes/demo.yaml`, which train in turns for the same wall time each.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import default_collate

import ranp
from ranp.environment import hardware, versions
from ranp.experiments import plots
from ranp.experiments.data.mni152 import TISSUES, load_brain, split
from ranp.experiments.losses import objective
from ranp.experiments.recipes import read_recipe, recipe_file
from ranp.experiments.runs import Run, finish_run, fit, open_run, validate
from ranp.experiments.studies.measuring import Workload, measure_steps
from ranp.files import write_json
from ranp.progress import Progress, no_progress
from ranp.storage import load_plan
from ranp.tables import Table

# What each network changes in the recipe; the best learning rate of the full network is lower.
_CHANGES = {"full": ("pruning.method=none", "training.rate=1e-2"), "pruned": ()}
_STAGES = {
    "importance": "importance as measured",
    "weighted": "after normalizing the layers' means",
    "ranp-f": "after reweighting by multiply-adds (RANP-f)",
}


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo.

    Attributes:
        changes: Changes of the recipe, such as `training.seconds=10`.
        timed_steps: Steps per network of which the median time is taken; fewer where that takes too long.
        timing_seconds: Time after which no further step is timed.
    """

    changes: tuple[str, ...] = ()
    timed_steps: int = 7
    timing_seconds: float = 15.0


DEFAULT = DemoSettings()
QUICK = DemoSettings(("training.seconds=11", "training.validations=5", "pruning.batches=4"), 3, 4.0)


def run(
    folder: Path,
    settings: DemoSettings = DEFAULT,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Prune, measure, train both networks, and write all files into an empty folder; returns the report."""
    start = time.perf_counter()
    elapsed: dict[str, float] = {}
    runs: dict[str, Run] = {}
    with ExitStack() as stack:
        for name, done in (("full", "prepared"), ("pruned", "pruned")):
            recipe = read_recipe(recipe_file("demo"), (*settings.changes, *_CHANGES[name]), seed)
            out, prefixed = folder / "runs" / name, partial(_report_progress, progress, name)
            opened = open_run(recipe, folder, out, device=torch.device(device), progress=prefixed)
            runs[name] = stack.enter_context(opened)
            runs[name].model.to(runs[name].fabric.device)
            elapsed[done] = time.perf_counter() - start
        measured = measure(runs, settings, progress)
        elapsed["measured"] = time.perf_counter() - start
        curves = train_in_turns(runs)
        elapsed["trained"] = time.perf_counter() - start
        report = make_report(runs, measured, curves, elapsed)
        write_files(folder, report, runs, progress)
    return report


def _report_progress(progress: Progress, name: str, what: str, done: int, total: int) -> None:
    progress(f"{name} network: {what}", done, total)


def measure(runs: Mapping[str, Run], settings: DemoSettings, progress: Progress) -> dict[str, dict[str, float]]:
    """`step_seconds` and `peak_bytes` of a training step of each network, before they are trained."""
    one = runs["pruned"]
    batch = tuple(default_collate([one.bundle.train[index] for index in range(one.recipe.training.batch)]))
    loss_fn = objective(one.recipe.training.loss, one.bundle.ignore_index)
    models, optimizer = {name: run.model for name, run in runs.items()}, partial(torch.optim.AdamW, lr=1e-3)
    work = Workload(models, batch, loss_fn, optimizer, one.fabric.device)
    return measure_steps(work, progress, repeats=settings.timed_steps, limit_seconds=settings.timing_seconds)


def train_in_turns(runs: Mapping[str, Run]) -> dict[str, list[dict[str, Any]]]:
    """Train all runs, from one validation to the next in turns, so that a machine that slows down slows all of them.

    Returns for each run the validations, before training and during it: `seconds`, `steps`, and `dice` by tissue.
    """
    first = {name: {"step": 0, "seconds": 0.0, **_validated(run)} for name, run in runs.items()}
    for _ in zip_longest(*(fit(run) for run in runs.values())):
        pass
    for run in runs.values():
        finish_run(run)
    return {name: [_point(row) for row in (first[name], *run.state.curve)] for name, run in runs.items()}


def _validated(run: Run) -> dict[str, float | None]:
    return validate(run.fabric, run.model, run.bundle, batch=run.recipe.training.batch)


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    dice = {tissue: row[f"dice/{tissue}"] for tissue in TISSUES[1:]}
    return {"seconds": row["seconds"], "steps": row["step"], "dice": {**dice, "mean": row["dice"]}}


def make_report(
    runs: Mapping[str, Run],
    measured: Mapping[str, Mapping[str, float]],
    curves: Mapping[str, list[dict[str, Any]]],
    elapsed: Mapping[str, float],
) -> dict[str, Any]:
    """All results as JSON: both networks, settings, environment, and seconds from the start to the end of each part."""
    recipe, device = runs["pruned"].recipe, runs["pruned"].fabric.device
    return {
        "format": "ranp-demo",
        "version": 2,
        "seed": recipe.seed,
        "device": str(device),
        "hardware": hardware(device),
        "versions": versions(("ranp", "torch", "monai", "nilearn", "numpy", "matplotlib")),
        "settings": {
            "width": recipe.network.arguments["width"],
            "macs": recipe.pruning.budget.macs if recipe.pruning.budget else None,
            "patch": recipe.data["patch"],
            "batch": recipe.training.batch,
            "scoring_batches": recipe.pruning.batches,
            **{f"rate_{name}": run.recipe.training.rate for name, run in runs.items()},
            "seconds": recipe.training.seconds,
            "validations": recipe.training.validations,
            "validation_patches": recipe.data["validation_patches"],
        },
        "elapsed_seconds": dict(elapsed),
        **{name: _entry(run, measured[name], curves[name]) for name, run in runs.items()},
    }


def _entry(run: Run, measured: Mapping[str, float], curve: list[dict[str, Any]]) -> dict[str, Any]:
    cost = run.pruning["cost"]
    return {
        **{name: cost[name] for name in ("params", "macs", "activation_bytes")},
        **measured,
        "dice": {"background": _background_dice(run), **curve[-1]["dice"]},
        "steps": run.state.step,
        "training_seconds": run.state.seconds,
        "curve": curve,
    }


def _background_dice(run: Run) -> float | None:
    """Dice of the background, which the data set's metric leaves out because it is easy and large."""
    from ranp.experiments.data.metrics import RegionDice

    metric = partial(RegionDice, {"background": (0,)}, pooled=True)
    return _validated(replace(run, bundle=replace(run.bundle, metric=metric)))["dice"]


def comparison(report: Mapping[str, Any]) -> Table:
    """The table of a report."""
    full, pruned = report["full"], report["pruned"]
    found = []
    for label, key, unit, style in (
        ("parameters", "params", 1, ",.0f"),
        ("MACs of a patch (M)", "macs", 1e6, ",.1f"),
        ("activation memory of a patch (MB)", "activation_bytes", 1e6, ",.1f"),
        ("training step, measured (ms)", "step_seconds", 1e-3, ",.0f"),
        ("peak memory of training, measured (MB)", "peak_bytes", 1e6, ",.0f"),
    ):
        ratio = full[key] / max(pruned[key], 1e-12)
        found.append((label, f"{full[key] / unit:{style}}", f"{pruned[key] / unit:{style}}", f"{ratio:.1f}x less"))
    ratio = pruned["steps"] / max(full["steps"], 1)
    found.append(("training steps in the same time", str(full["steps"]), str(pruned["steps"]), f"{ratio:.1f}x more"))
    for key in (*TISSUES, "mean"):
        before, after = full["dice"][key], pruned["dice"][key]
        label = "mean Dice of grey, white and other" if key == "mean" else f"Dice, {key}"
        found.append((label, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"))
    return Table("A 3D U-Net, full and pruned before training", ("", "full", "pruned", "change"), found)


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page: `demo_report.md` with the results filled in."""
    packages = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    durations = ", ".join(f"{what} after {seconds:.0f} s" for what, seconds in report["elapsed_seconds"].items())
    template = Path(__file__).with_name("demo_report.md").read_text(encoding="utf-8")
    return template.format(table=comparison(report).markdown(), packages=packages, durations=durations, **report)


def write_files(folder: Path, report: Mapping[str, Any], runs: Mapping[str, Run], progress: Progress) -> None:
    """Write report, plots, plan and weights into an existing folder."""
    titles = {"full": "full", "pruned": f"pruned ({report['settings']['macs']:.0%} MACs)"}
    pruned = runs["pruned"]
    plan, scores = load_plan(pruned.folder.plan), pruned.scores
    assert scores is not None
    stages = {_STAGES.get(stage, stage): layers for stage, layers in scores.stages.items()}
    points = {
        title: [{**point, "dice": point["dice"]["mean"]} for point in report[name]["curve"]]
        for name, title in titles.items()
    }
    progress("draw and write", 0, 2)
    plots.dice_curves(points).savefig(folder / "dice.png")
    plots.importance_per_layer(stages).savefig(folder / "importance.png")
    plots.channels_kept(plan.widths, plan.full_widths).savefig(folder / "channels.png")
    draw_slice(report, titles, runs).savefig(folder / "segmentation.png")
    progress("draw and write", 1, 2)
    ranp.save(pruned.model.cpu(), plan, folder / "pruned")
    weights = {name: tensor.cpu().contiguous() for name, tensor in runs["full"].model.state_dict().items()}
    save_file(weights, folder / "full.safetensors")
    write_json(folder / "report.json", report)
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    progress("draw and write", 2, 2)


def draw_slice(report: Mapping[str, Any], titles: Mapping[str, str], runs: Mapping[str, Run]) -> Any:
    """A coronal slice of the validation region with the truth and both segmentations."""
    brain = load_brain()
    training, validation = split(brain)
    # 12 mm anterior to the origin: through the lateral ventricle, the caudate and the putamen.
    depth = brain.origin[1] + 12
    across, along, _ = validation.box
    here = min(depth - along.start, validation.image.shape[1] - 1)
    # A slab as thick as a training patch, so that the networks see the surroundings of the slice.
    half = report["settings"]["patch"] // 2
    first = max(0, here - half)
    slab = validation.image[:, first : here + half]
    labelled = {"truth": validation.labels[:, here].numpy()}
    for name, title in titles.items():
        predicted = _segment(runs[name], slab)[:, here - first].numpy()
        labelled[f"{title}\nmean Dice {report[name]['dice']['mean']:.3f}"] = predicted
    boxes = {"training": training.box[:2], "validation": (across, along)}
    locator = (brain.image[:, :, brain.origin[2] + 10], boxes, depth)
    return plots.segmentations(validation.image[:, here].numpy(), labelled, TISSUES, locator=locator)


def _segment(run: Run, image: torch.Tensor) -> torch.Tensor:
    """The most probable class of every voxel of `(X, Y, Z)`."""
    model = run.model.eval()
    with torch.no_grad():
        outputs = run.bundle.predict(model, image[None, None].to(run.fabric.device))
    return outputs[0].argmax(0).cpu()


@contextmanager
def quickest_threads(*, rounds: int = 5) -> Iterator[int]:
    """Compute with one thread or with as many as torch is set to, whichever is faster now; yields their number.

    Threads wait for each other several times in every layer. Where another process occupies a core, even now and then,
    this waiting costs many times what the second thread gains: therefore the total time of all rounds counts.
    """
    before = torch.get_num_threads()
    try:
        times = dict.fromkeys((before, 1), 0.0)
        _trial()
        for count in list(times) * rounds:
            torch.set_num_threads(count)
            start = time.perf_counter()
            _trial()
            times[count] += time.perf_counter() - start
        quickest = min(times, key=lambda count: times[count])
        torch.set_num_threads(quickest)
        yield quickest
    finally:
        torch.set_num_threads(before)


def _trial() -> None:
    """Forward and backward through a few narrow layers, like those of a pruned network."""
    layers = [module for _ in range(4) for module in (nn.Conv3d(16, 16, 3, padding=1), nn.ReLU())]
    nn.Sequential(*layers)(torch.zeros(4, 16, 16, 16, 16)).sum().backward()
