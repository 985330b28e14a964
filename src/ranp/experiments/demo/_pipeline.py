"""The demo as a chain of small steps; `run` is the story in one screen."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ranp
from ranp.costs import peak_step_bytes, step_seconds
from ranp.experiments.data import ResumableSampler, resumable_loader
from ranp.experiments.data.mni152 import TISSUES, Brain, RandomPatches, Region, load_brain, split, tiles
from ranp.experiments.demo._files import write_files
from ranp.experiments.demo._loop import Loss, train
from ranp.experiments.demo._race import Runner, Tell, race
from ranp.experiments.demo._report import Measured, make_report
from ranp.experiments.demo._settings import Settings
from ranp.models import UNet3D
from ranp.optional import optional_import


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned: the data, the patches that are evaluated, and the loss."""

    brain: Brain
    training: Region
    validation: Region
    patches: tuple[Tensor, Tensor]
    loss_fn: Loss


def run(folder: Path, settings: Settings, *, seed: int, device: torch.device, tell: Tell) -> dict[str, Any]:
    """Prune, measure, train both networks, and fill the folder.

    Args:
        folder: An empty folder for all files.
        settings: Sizes, rates and times.
        seed: Of the weights, the scoring and the patches.
        device: Where to run.
        tell: Told of progress.

    Returns:
        The report, as written to `report.json`.
    """
    start = time.perf_counter()
    elapsed: dict[str, float] = {}
    task = prepare(settings, tell)
    elapsed["prepared"] = time.perf_counter() - start
    model, pruning = prune(task, settings, seed=seed, device=device, tell=tell)
    models = {"full": model, "pruned": pruning.model}
    elapsed["pruned"] = time.perf_counter() - start
    measured = measure(models, task, settings, seed=seed, tell=tell)
    elapsed["measured"] = time.perf_counter() - start
    runners = compete(models, task, settings, seed=seed, start=start, tell=tell)
    elapsed["trained"] = time.perf_counter() - start
    report = make_report(settings, seed, device, pruning.plan, runners, measured, elapsed)
    write_files(folder, report, pruning, models, (task.brain, task.training, task.validation), tell)
    return report


def prepare(settings: Settings, tell: Tell) -> Task:
    """Read the brain, cut it in two, choose the patches to evaluate, and make the loss."""
    tell("read the MRI", 0, 2)
    losses = optional_import("monai.losses", "demo", extra="demo")
    tell("read the MRI", 1, 2)
    brain = load_brain()
    training, validation = split(brain)
    images, labels = tiles(validation, patch=settings.patch, count=settings.validation_patches)
    patches = images, labels[:, None]
    tell("read the MRI", 2, 2)
    # Overlap over the whole batch: a small patch need not hold every tissue.
    loss_fn = losses.DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    return Task(brain, training, validation, patches, loss_fn)


def batches(region: Region, *, patch: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random patches and their labels, `(N, 1, patch, patch, patch)` each; the same seed gives the same ones."""
    sampler = ResumableSampler(512, batch, seed=seed, start=0, stop=10**9)
    for images, labels in resumable_loader(RandomPatches(region, patch, 512), sampler, workers=0, pin=False):
        yield images, labels[:, None]


def prune(
    task: Task, settings: Settings, *, seed: int, device: torch.device, tell: Tell
) -> tuple[nn.Module, ranp.PruneResult]:
    """Build the full network, score its neurons, and cut it down to its share of multiply-adds.

    The pruned network keeps the initial weights of the neurons that stay, so both start from the same draw.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UNet3D(1, len(TISSUES), width=settings.width).to(device)
    stream = batches(task.training, patch=settings.patch, batch=settings.batch, seed=seed)
    result = ranp.prune(
        model,
        torch.zeros(1, 1, *[settings.patch] * 3, device=device),
        list(islice(stream, settings.scoring_batches)),
        task.loss_fn,
        budget=ranp.Budget(macs=settings.macs),
        criterion="ranp-f",
        seed=seed,
        progress=tell,
    )
    return model, result


def measure(
    models: Mapping[str, nn.Module], task: Task, settings: Settings, *, seed: int, tell: Tell
) -> dict[str, Measured]:
    """Time a training step of both networks side by side, and find the peak memory of each."""
    batch = next(batches(task.training, patch=settings.patch, batch=settings.batch, seed=seed))
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    tell("measure time and memory of a step", 0, 2)
    seconds = step_seconds(
        models,
        batch,
        task.loss_fn,
        optimizer,
        repeats=settings.timed_steps,
        limit_seconds=settings.timing_seconds,
    )
    tell("measure time and memory of a step", 1, 2)
    peaks = peak_step_bytes(models, batch, task.loss_fn, optimizer)
    tell("measure time and memory of a step", 2, 2)
    return {name: Measured(seconds[name], peaks[name]) for name in models}


def compete(
    models: Mapping[str, nn.Module], task: Task, settings: Settings, *, seed: int, start: float, tell: Tell
) -> list[Runner]:
    """Train both networks for the same wall time each, on the same stream of batches.

    Args:
        models: The networks by name, trained in place.
        task: What they learn.
        settings: Rates and times.
        seed: Of the patches; another one than scoring's would do as well.
        start: When the demo began, by `time.perf_counter`.
        tell: Told of progress.

    Returns:
        One runner per network, with its curve.
    """
    runners = [Runner(name, model) for name, model in models.items()]
    evaluation = sum(runner.evaluate(*task.patches) for runner in runners)
    seconds = settings.training_seconds(elapsed=time.perf_counter() - start, evaluation=evaluation)
    rates = {"full": settings.rate_full, "pruned": settings.rate_pruned}
    for runner in runners:
        optimizer = torch.optim.AdamW(runner.model.parameters(), lr=rates[runner.name])
        stream = batches(task.training, patch=settings.patch, batch=settings.batch, seed=seed + 1)
        runner.loop = train(runner.model, stream, task.loss_fn, optimizer, seconds=seconds)
    race(runners, task.patches, seconds=seconds, checks=settings.checks, tell=tell)
    return runners
