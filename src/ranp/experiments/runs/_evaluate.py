"""The evaluation loop, and the evaluation of a run's best weights."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from ranp.experiments import recipes
from ranp.experiments.data import DataBundle, sample_count
from ranp.experiments.runs._folder import RunFolder
from ranp.experiments.runs._machine import make_fabric, translate_errors
from ranp.experiments.runs._networks import best_model
from ranp.experiments.runs.state import read_best
from ranp.module_utils import preserve_state
from ranp.progress import Progress, no_progress


def validate(
    fabric: Any, model: nn.Module, bundle: DataBundle, *, batch: int, workers: int = 0, progress: Progress = no_progress
) -> dict[str, float | None]:
    """Metrics of a model on the evaluation part of a data set, by name; None where one is not a finite number.

    The model is on Fabric's device, and left as it was. Processes share the samples.
    """
    # Every n-th sample, none of them twice: means must not count a sample more than once.
    own = range(fabric.global_rank, sample_count(bundle.evaluation), fabric.world_size)
    loader = DataLoader(
        Subset(bundle.evaluation, own), batch_size=min(batch, bundle.evaluation_batch or batch), num_workers=workers
    )
    metric: Any = bundle.metric()
    metric.to(fabric.device)
    with preserve_state(model, values=False), torch.no_grad(), fabric.autocast():
        model.eval()
        for done, (inputs, targets) in enumerate(loader, start=1):
            outputs = bundle.predict(model, inputs.to(fabric.device))
            metric.update(outputs.float(), targets.to(fabric.device))
            progress("validation", done, len(loader))
    metrics = {name: float(value) for name, value in metric.compute().items()}
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def evaluate_run(
    out: Path, data: Path, *, data_sets: "recipes.DataSets | None" = None, progress: Progress = no_progress
) -> dict[str, Any]:
    """Evaluate the best weights of a run, finished or not; returns the results, as in `evaluation.json`.

    Raises:
        RanpError: The folder is not that of a run, it has no weights yet, or data are missing.
    """
    folder = RunFolder(out)
    recipe = recipes.read_recipe(folder.read_recipe(), data_sets=data_sets, place=str(folder.record))
    best = read_best(folder.best)
    training = recipe.training
    with translate_errors("evaluation", memory="lower training.batch", disk="free disk space and evaluate again"):
        bundle = recipe.data_set().open(data, progress=progress)
        fabric = make_fabric(training.precision)
        model = best_model(folder, recipe, bundle).to(fabric.device)
        begin = time.perf_counter()
        metrics = validate(fabric, model, bundle, batch=training.batch, workers=training.workers, progress=progress)
        found = {
            "step": best["step"],
            "primary_metric": bundle.primary_metric,
            "metrics": metrics,
            "seconds": time.perf_counter() - begin,
        }
        return folder.write(folder.evaluation, found)
