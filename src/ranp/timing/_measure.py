"""The public function: from a model to a table of step times, which is stored and used again."""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from ranp.costs.time import Key, TimeTable
from ranp.costs.time_file import check_times, read_times, write_times
from ranp.costs.training import TrainingSetup
from ranp.errors import ArtifactError
from ranp.files import cache_folder
from ranp.graph import ChannelGraph
from ranp.progress import Progress
from ranp.timing._timer import StepTimer
from ranp.tracing import trace


def measure_times(
    model: nn.Module,
    example_inputs: Any,
    setup: TrainingSetup | None = None,
    *,
    graph: ChannelGraph | None = None,
    limit_seconds: float = 120,
    file: str | Path | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> TimeTable:
    """Measure how long training steps take, so that the time of a step is known at any widths.

    Steps of copies of the model are run at the full and at random smaller widths, and the duration of every operator is
    recorded. From these follow costs per call, activation, weight and multiply-add of each operator, and the channels
    that the device computes on at once.

    Args:
        model: The full model; it is not changed.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments), of the batch size and input size
            in training. Steps take the batch of the setup, where it has one.
        setup: How the model is trained; see `ranp.TrainingSetup`.
        graph: The traced model; by default it is traced.
        limit_seconds: Measure no further widths after this time (but four in any case).
        file: Read the table from this file; if it does not exist, measure, and write it.
        cache: Without a file, use the table that was measured before in the same way, if any. Tables are kept in the
            user's cache folder.
        progress: Called with how many widths are done, and how many there are.

    Returns:
        The table; with `graph.with_costs(step_seconds=table)`, `graph.cost(widths).step_seconds` is the predicted
        duration of a step.

    Raises:
        ArtifactError: The file has the step times of another device, version of torch, way of training or network.
        OutOfMemoryError: Too few of the steps fit into memory.

    Example:
        >>> import torch
        >>> import ranp
        >>> model, x = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)), torch.zeros(1, 1, 32, 32)
        >>> graph = ranp.trace(model, x)
        >>> graph = graph.with_costs(step_seconds=ranp.measure_times(model, x, graph=graph, cache=False))
        >>> graph.cost([4]).step_seconds < 1
        True
    """
    graph = graph or trace(model, example_inputs)
    timer = StepTimer(model, graph, example_inputs, setup)
    path = Path(file) if file is not None else _cached(timer.key, graph.fingerprint) if cache else None
    if path is not None and path.exists():
        try:
            table = read_times(path)
            check_times(table, timer.key, graph.fingerprint, str(path))
            return table
        except ArtifactError:
            if file is not None:
                raise  # A damaged file in the cache is replaced.
    table = timer.table(limit_seconds=limit_seconds, progress=progress)
    # A busy device is measured again the next time, unless the user wants this table.
    if path is not None and (file is not None or not table.warnings):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_times(table, path)
    return table


def _cached(key: Key, network: str) -> Path:
    """Where the table of a network is kept."""
    digest = hashlib.sha256(json.dumps([dict(key), network], sort_keys=True).encode()).hexdigest()
    return cache_folder() / "step-times" / f"{digest[:32]}.json"
