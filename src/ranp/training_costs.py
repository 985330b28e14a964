"""What a training step costs: its time, from measurements, and its memory, predicted; as models for a graph."""

from collections.abc import Collection
from typing import Any

from torch import nn

from ranp.costs import CostModel
from ranp.costs.time import TimeTable
from ranp.costs.time_file import check_times
from ranp.costs.training import TrainingSetup
from ranp.graph import ChannelGraph
from ranp.memory import MemoryPredictor
from ranp.progress import Progress
from ranp.timing import StepTimer, measure_times, require_one_process


def with_training_costs(
    model: nn.Module,
    example_inputs: Any,
    graph: ChannelGraph,
    names: Collection[str],
    *,
    setup: TrainingSetup | None = None,
    times: TimeTable | None = None,
    progress: Progress | None = None,
) -> ChannelGraph:
    """A graph with the costs of a training step that are needed.

    Args:
        model: The full model; it is not changed.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).
        graph: The traced model.
        names: Which are needed: `step_time`, `train_memory`; others are ignored.
        setup: How the model is trained.
        times: Measured step times; by default they are measured where they are needed.
        progress: Called while step times are measured.

    Raises:
        ArtifactError: The times are those of another device, version of torch, way of training or network.
        InputError: Step times are needed in one of several processes.
        OutOfMemoryError: Too few training steps fit into memory.
    """
    models: dict[str, CostModel] = {}
    if times is not None or "step_time" in names:
        require_one_process()
        if times is None:
            times = measure_times(model, example_inputs, setup, graph=graph, progress=progress)
        else:
            check_times(times, StepTimer(model, graph, example_inputs, setup).key, graph.fingerprint, "times")
        models["step_seconds"] = times
    if "train_memory" in names:
        models["train_bytes"] = MemoryPredictor(model, example_inputs, setup, graph=graph).formula()
    return graph.with_costs(**models)
