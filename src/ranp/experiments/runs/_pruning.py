"""The first stage of a run: the smaller network, decided once and kept."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import ranp
from ranp.experiments.data import DataBundle, ResumableSampler, derive_seed, resumable_loader, sample_count
from ranp.experiments.losses import objective
from ranp.experiments.recipes import Recipe, build_network
from ranp.experiments.runs._folder import PRUNING, RunFolder, read_json
from ranp.explorer import survey, timed, write_survey
from ranp.files import write_json
from ranp.graph import ChannelGraph
from ranp.progress import Progress
from ranp.scores import Scores
from ranp.storage import load_plan


def network_of(recipe: Recipe, bundle: DataBundle) -> nn.Module:
    """The full network for a data set."""
    return build_network(recipe.network, bundle.in_channels, bundle.classes, seed=recipe.seed)


def pruned_network(
    folder: RunFolder, recipe: Recipe, data: Path, bundle: DataBundle, *, fabric: Any, tell: Progress
) -> tuple[nn.Module, dict[str, Any]]:
    """The pruned network with its initial weights: read if it has been made, else made and written.

    Args:
        folder: Of the run.
        recipe: Of the run.
        data: Folder of the data set.
        bundle: The data set, as training sees it.
        fabric: Gives the device and the processes; each scores its share of the batches, the first one writes.
        tell: Told of progress.

    Returns:
        The network, on the CPU, and what is known of it (see `RunFolder.pruning`).
    """
    full = network_of(recipe, bundle)
    made = folder.plan.exists()
    fabric.barrier()  # No process may write before all have looked.
    if made:
        return ranp.load(folder.plan, full), read_json(folder.pruning, PRUNING)
    begin = time.perf_counter()
    example = torch.zeros(1, *bundle.input_shape)
    if recipe.pruning.plan is not None:
        small, plan, scores, look = _taken_over(full, recipe, example)
    else:
        small, plan, scores, look = _decide(full.to(fabric.device), recipe, data, bundle, fabric, tell)
    seconds = time.perf_counter() - begin
    found = look() if fabric.is_global_zero else {}
    small, full = small.cpu(), full.cpu()
    graph = ranp.trace(full, example)
    facts = {
        "format": PRUNING,
        "version": 1,
        "method": recipe.pruning.method if recipe.pruning.plan is None else f"plan ({plan.criterion})",
        "batches": 0 if scores is None else scores.batches,
        "stability": [] if scores is None else [list(entry) for entry in scores.stability],
        "seconds": seconds,
        # Pruning may have seen smaller samples: these are the costs of one that training sees.
        "cost": asdict(ranp.trace(small, example).cost()),
        "full_cost": asdict(graph.cost()),
        "widths": dict(plan.widths),
        "guarded": [] if scores is None else _guarded(graph, plan, scores),
        "importance": {} if scores is None else _mean_importance(scores),
    }
    if fabric.is_global_zero:
        write_json(folder.pruning, facts)
        write_survey(folder.path, found)
        # Last: its presence says that all of pruning is done.
        ranp.save(small, plan, folder.plan)
    return small, facts


def _guarded(graph: ChannelGraph, plan: ranp.Plan, scores: Scores) -> list[str]:
    """Groups that would be empty, had as many channels been kept by their scores alone."""
    count = sum(len(kept) for kept in plan.keep.values())
    best = np.argsort(-scores.channels, kind="stable")[:count]
    alive = np.bincount(graph.group_of[best], minlength=len(graph.groups))
    return [group.name for group, number in zip(graph.groups, alive, strict=True) if not number]


def _mean_importance(scores: Scores) -> dict[str, dict[str, float]]:
    """Of the neurons of every layer, before and after each reweighting."""
    return {
        stage: {layer: float(np.mean(values)) for layer, values in layers.items()}
        for stage, layers in scores.stages.items()
    }


# The smaller network, its plan, the scores that it rests on, and how to find its survey.
Decision: TypeAlias = tuple[nn.Module, ranp.Plan, Scores | None, Callable[[], dict[str, Any]]]


def _taken_over(full: nn.Module, recipe: Recipe, example: Tensor) -> Decision:
    assert recipe.pruning.plan is not None
    plan = load_plan(recipe.pruning.plan)
    small = ranp.apply(full, plan, weights=recipe.pruning.weights, seed=recipe.seed)
    return small, plan, None, lambda: survey(ranp.trace(full, example), plan)


def _decide(full: nn.Module, recipe: Recipe, data: Path, bundle: DataBundle, fabric: Any, tell: Progress) -> Decision:
    """Prune by the recipe; the full network, too, gets a plan: to keep everything."""
    pruning = recipe.pruning
    whole = pruning.method == "none"
    shown = recipe.data_set(pruning.data).open(data, progress=tell) if pruning.data else bundle
    assert whole or pruning.budget is not None
    example = torch.zeros(1, *shown.input_shape, device=next(full.parameters()).device)
    found = ranp.prune(
        full,
        example,
        _batches(recipe, shown, fabric),
        objective(recipe.training.loss, shown.ignore_index),
        budget=ranp.Budget(macs=1.0) if whole or pruning.budget is None else pruning.budget.budget(),
        criterion="uniform" if whole else pruning.method,
        importance=pruning.importance,
        resource_weight=pruning.resource_weight,
        seed=recipe.seed,
        min_width=pruning.min_width,
        round_to=pruning.round_to,
        weights=pruning.weights,
        stop_at_correlation=pruning.stability if pruning.batches == "stable" else None,
        progress=tell,
    )

    def look() -> dict[str, Any]:
        return timed(found.survey(), found.graph, found.plan, full, example)

    return found.model, found.plan, found.scores, look


def _batches(recipe: Recipe, bundle: DataBundle, fabric: Any) -> Any:
    """This process's share of the batches to score with, the same in every run of the same seed."""
    pruning, count = recipe.pruning, sample_count(bundle.train)
    batch = pruning.batch or recipe.training.batch
    asked = pruning.batches if isinstance(pruning.batches, int) else -(-count // batch)
    rank, world = fabric.global_rank, fabric.world_size
    stream = ResumableSampler(
        count,
        batch,
        seed=derive_seed(recipe.seed, "scoring"),
        start=0,
        stop=len(range(rank, asked, world)),
        rank=rank,
        world=world,
    )
    return resumable_loader(bundle.train, stream, workers=recipe.training.workers, pin=False)
