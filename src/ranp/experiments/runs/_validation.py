"""Judging a model on the evaluation part of a data set."""

import math
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from ranp.experiments.data import DataBundle, sample_count
from ranp.experiments.runs._progress import Row
from ranp.progress import Progress


def validate(fabric: Any, model: nn.Module, bundle: DataBundle, *, batch: int, workers: int, tell: Progress) -> Row:
    """Figures of the data set's metric over its evaluation part; processes share the samples.

    Args:
        fabric: Gives device and precision.
        model: On the device; its modes are put back afterwards.
        bundle: The data set.
        batch: Samples a batch, at most.
        workers: Processes that load data.
        tell: Told of progress.

    Returns:
        Each figure by name, None where it is not a number.
    """
    # Every so many-th sample, none of them twice: means must not count a sample more than once.
    own = range(fabric.global_rank, sample_count(bundle.evaluation), fabric.world_size)
    loader = DataLoader(
        Subset(bundle.evaluation, own), batch_size=min(batch, bundle.evaluation_batch or batch), num_workers=workers
    )
    metric: Any = bundle.metric()
    metric.to(fabric.device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), fabric.autocast():
            for done, (inputs, targets) in enumerate(loader, start=1):
                outputs = bundle.predict(model, inputs.to(fabric.device))
                metric.update(outputs.float(), targets.to(fabric.device))
                tell("validation", done, len(loader))
    finally:
        for module, training in modes.items():
            module.training = training
    figures = {name: float(value) for name, value in metric.compute().items()}
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
