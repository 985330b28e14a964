"""The networks of a run: the full one, the pruned one, which is decided once and kept, and the best trained one."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import ranp
from ranp.experiments import recipes
from ranp.experiments.data import DataBundle, ResumableSampler, derive_seed, resumable_loader, sample_count
from ranp.experiments.losses import objective
from ranp.experiments.runs._folder import RunFolder
from ranp.experiments.runs._machine import fabric_precision
from ranp.explorer import survey, with_forward_seconds, write_survey
from ranp.graph import ChannelGraph
from ranp.progress import Progress
from ranp.scores import Scores
from ranp.storage import load_plan, read_weights


def full_network(recipe: "recipes.Recipe", bundle: DataBundle) -> nn.Module:
    """The full network for a data set, with its initial weights."""
    return recipe.network.build(bundle.in_channels, bundle.classes, seed=recipe.seed)


def best_model(folder: RunFolder, recipe: "recipes.Recipe", bundle: DataBundle) -> nn.Module:
    """The pruned network with the weights of the best validation, on the CPU."""
    model = ranp.load(folder.plan, full_network(recipe, bundle))
    read_weights(model, folder.best)
    return model


def pruned_network(
    folder: RunFolder, recipe: "recipes.Recipe", data: Path, bundle: DataBundle, *, fabric: Any, progress: Progress
) -> tuple[nn.Module, dict[str, Any], Scores | None]:
    """The pruned network with its initial weights, on the CPU: read if it exists, else made and written.

    Every process of `fabric` scores its share of the batches, and the first one writes. Also returned are the results
    of pruning (see `RunFolder.pruning`), and the scores, if it was scored now.
    """
    full = full_network(recipe, bundle)
    exists = folder.plan.exists()
    fabric.barrier()  # No process may write before all have looked.
    if exists:
        return ranp.load(folder.plan, full), folder.read(folder.pruning), None
    begin = time.perf_counter()
    small, plan, scores, make_survey = _prune(full.to(fabric.device), recipe, data, bundle, fabric, progress)
    seconds = time.perf_counter() - begin
    found = make_survey() if fabric.is_global_zero else {}
    small, full = small.cpu(), full.cpu()
    example = torch.zeros(1, *bundle.input_shape)
    graph = ranp.trace(full, example)
    results = {
        "method": recipe.pruning.method if recipe.pruning.plan is None else f"plan ({plan.criterion})",
        "batches": 0 if scores is None else scores.batches,
        "stability": [] if scores is None else [list(entry) for entry in scores.stability],
        "seconds": seconds,
        # Pruning may have seen smaller samples: these are the costs of one that training sees.
        "cost": ranp.trace(small, example).cost().known(),
        "full_cost": graph.cost().known(),
        "widths": dict(plan.widths),
        "guarded": [] if scores is None else _guarded(graph, plan, scores),
        "importance": {
            stage: {layer: float(np.mean(values)) for layer, values in layers.items()}
            for stage, layers in ({} if scores is None else scores.stages).items()
        },
    }
    if fabric.is_global_zero:
        folder.write(folder.pruning, results)
        write_survey(folder.path, found)
        # Last: its presence means that pruning is finished.
        ranp.save(small, plan, folder.plan)
    return small, results, scores


def _guarded(graph: ChannelGraph, plan: ranp.Plan, scores: Scores) -> list[str]:
    """Groups that would be empty if as many channels had been kept by their scores alone."""
    count = sum(len(kept) for kept in plan.keep.values())
    best = np.argsort(-scores.channels, kind="stable")[:count]
    alive = np.bincount(graph.group_of[best], minlength=len(graph.groups))
    return [group.name for group, number in zip(graph.groups, alive, strict=True) if not number]


def _prune(
    full: nn.Module, recipe: "recipes.Recipe", data: Path, bundle: DataBundle, fabric: Any, progress: Progress
) -> tuple[nn.Module, ranp.Plan, Scores | None, Callable[[], dict[str, Any]]]:
    """Prune as the recipe says: the pruned network, its plan, the scores, and a function that computes the survey.

    The full network gets a plan, too, which keeps everything.
    """
    pruning, device = recipe.pruning, next(full.parameters()).device
    if pruning.plan is not None:
        plan = load_plan(pruning.plan)
        small = ranp.apply(full, plan, weights=pruning.weights, seed=recipe.seed)
        example = torch.zeros(1, *bundle.input_shape, device=device)
        return small, plan, None, lambda: survey(ranp.trace(full, example), plan)
    keep_all = pruning.method == "none"
    scored = recipe.data_set(pruning.data).open(data, progress=progress) if pruning.data else bundle
    example = torch.zeros(1, *scored.input_shape, device=device)
    training = recipe.training
    setup = ranp.TrainingSetup(
        batch=(torch.zeros(training.batch, *scored.input_shape), None),
        optimizer=training.optimizer,
        precision=fabric_precision(training.precision, device),  # type: ignore[arg-type]
        channels_last=training.channels_last,
    )
    result = ranp.prune(
        full,
        example,
        _batches(recipe, scored, fabric),
        objective(recipe.training.loss, scored.ignore_index),
        budget=ranp.Budget(macs=1.0) if keep_all or pruning.budget is None else pruning.budget,
        criterion="uniform" if keep_all else pruning.method,
        seed=recipe.seed,
        **pruning.model_dump(include={"importance", "resource_weight", "policy", "min_width", "round_to", "weights"}),
        stop_at_correlation=pruning.stability if pruning.batches == "stable" else None,
        process_group=torch.distributed.group.WORLD if fabric.world_size > 1 else None,
        setup=setup,
        progress=progress,
    )
    return (
        result.model,
        result.plan,
        result.scores,
        lambda: with_forward_seconds(result.survey(), result.graph, result.plan, full, example),
    )


def _batches(recipe: "recipes.Recipe", bundle: DataBundle, fabric: Any) -> Any:
    """This process's share of the batches to score with."""
    pruning, batch = recipe.pruning, recipe.pruning.batch or recipe.training.batch
    batches = pruning.batches if isinstance(pruning.batches, int) else -(-sample_count(bundle.train) // batch)
    stop = len(range(fabric.global_rank, batches, fabric.world_size))
    return random_batches(recipe, bundle, fabric, "scoring", batch=batch, start=0, stop=stop)


def random_batches(
    recipe: "recipes.Recipe", bundle: DataBundle, fabric: Any, purpose: str, *, batch: int, start: int, stop: int
) -> Any:
    """This process's share of batches of the training samples, the same for one purpose in every run of one seed."""
    seed, rank, world = derive_seed(recipe.seed, purpose), fabric.global_rank, fabric.world_size
    count, pin = sample_count(bundle.train), fabric.device.type == "cuda"
    sampler = ResumableSampler(count, batch, seed=seed, start=start, stop=stop, rank=rank, world=world)
    return resumable_loader(bundle.train, sampler, workers=recipe.training.workers, pin=pin)
