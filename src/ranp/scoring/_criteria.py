"""The criteria by name: each turns importance of neurons into scores of channels."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from torch import nn

from ranp.errors import InputError, nearest
from ranp.graph import ChannelGraph, Floats
from ranp.scores import Scores
from ranp.scoring._loss import Progress, Step, step_of
from ranp.scoring._neuron import neuron_importance
from ranp.scoring._parameter import Reduction, parameter_importance
from ranp.scoring._reweighting import normalize_layer_means, reweight_by_resource
from ranp.scoring._stability import Ranking

Importance: TypeAlias = Literal["parameter", "neuron"]
Layers: TypeAlias = Mapping[str, Floats]
DEFAULT_LAMBDA = 11.0


@dataclass(frozen=True)
class Criterion:
    """One way to score.

    Attributes:
        stages: From the graph, the neurons' importance by layer, and lambda, to the steps of the criterion by name.
        combine: How the scores of the layers that produce a channel together become the channel's.
        importance: Whether it needs importance, that is, batches and a loss.
        reduce: How the `parameter` reading goes from a neuron's parameters to the neuron, where that is fixed.
        finish: A last step on the channels' scores.
    """

    stages: Callable[[ChannelGraph, Layers, float], dict[str, Layers]]
    combine: Literal["sum", "max"] = "sum"
    importance: bool = True
    reduce: Reduction | None = None
    finish: Callable[[ChannelGraph, Floats, np.random.Generator], Floats] | None = None


def vanilla(graph: ChannelGraph, importance: Layers, resource_weight: float) -> dict[str, Layers]:
    """Importance as it is."""
    return {"importance": importance}


def weighted(graph: ChannelGraph, importance: Layers, resource_weight: float) -> dict[str, Layers]:
    """Layers made equally important on average."""
    return {"importance": importance, "weighted": normalize_layer_means(importance)}


def ranp_f(graph: ChannelGraph, importance: Layers, resource_weight: float) -> dict[str, Layers]:
    """Layers with few multiply-adds favoured."""
    stages = weighted(graph, importance, resource_weight)
    macs = {layer.name: float(layer.macs) for layer in graph.layers}
    return stages | {"ranp-f": reweight_by_resource(stages["weighted"], macs, resource_weight)}


def ranp_m(graph: ChannelGraph, importance: Layers, resource_weight: float) -> dict[str, Layers]:
    """Layers with small outputs favoured."""
    stages = weighted(graph, importance, resource_weight)
    outputs = {layer.name: float(layer.output_elements) for layer in graph.layers}
    return stages | {"ranp-m": reweight_by_resource(stages["weighted"], outputs, resource_weight)}


def rank_within(graph: ChannelGraph, channels: Floats, random: np.random.Generator) -> Floats:
    """Scores by rank within the group, so that one threshold removes the same fraction of every group."""
    order = np.lexsort((-channels, graph.group_of))
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order)) - graph.offsets[graph.group_of[order]]
    return 1 - rank / graph.widths[graph.group_of] if len(rank) else rank


def draw(graph: ChannelGraph, channels: Floats, random: np.random.Generator) -> Floats:
    """Scores drawn uniformly."""
    return random.random(len(channels))


def evenly(graph: ChannelGraph, channels: Floats, random: np.random.Generator) -> Floats:
    """Scores by place within the group: every group becomes narrower by the same factor, whatever the data."""
    return 1 - _place(graph) / graph.widths[graph.group_of]


def level(graph: ChannelGraph, channels: Floats, random: np.random.Generator) -> Floats:
    """Scores by place alone: every group ends up at one width, or at its own where that is less."""
    return -_place(graph)


def _place(graph: ChannelGraph) -> Floats:
    """Number of every channel within its group."""
    place = np.arange(len(graph.group_of)) - graph.offsets[graph.group_of]
    return place.astype(np.float64)


CRITERIA: dict[str, Criterion] = {
    "uniform": Criterion(lambda graph, importance, resource_weight: {}, importance=False, finish=evenly),
    "constant": Criterion(lambda graph, importance, resource_weight: {}, importance=False, finish=level),
    "random": Criterion(lambda graph, importance, resource_weight: {}, importance=False, finish=draw),
    "layerwise": Criterion(vanilla, finish=rank_within),
    "vanilla": Criterion(vanilla),
    "weighted": Criterion(weighted),
    "ranp-f": Criterion(ranp_f),
    "ranp-m": Criterion(ranp_m),
    # A neuron outlives SNIP's threshold on parameters as long as its largest parameter does.
    "snip": Criterion(vanilla, combine="max", reduce="max"),
}


def score(
    model: nn.Module,
    graph: ChannelGraph,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], Any] | None = None,
    *,
    criterion: str = "ranp-f",
    importance: Importance = "parameter",
    resource_weight: float | None = None,
    seed: int = 0,
    reduce: Reduction = "sum",
    step: Step | None = None,
    stop_at_correlation: float | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every neuron of a model once, before training.

    The model runs in training mode with the biases of its layers at zero; afterwards its mode, weights, buffers,
    gradients and the state of the random number generators are as they were.

    Where torch's default process group is initialized (under torchrun, say), every process scores its own batches, at
    least one, and all get the scores of all batches; only dropout differs from what one process would draw.

    Args:
        model: The model that was traced.
        graph: What tracing found.
        batches: Yields `(inputs, targets)`, inputs a tensor, a tuple (positional) or a dict (keyword arguments); all
            of it is used.
        loss_fn: From `(outputs, targets)` to a scalar.
        criterion: One of `CRITERIA`.
        importance: `parameter` sums |w * dL/dw| over a neuron's weights; `neuron` takes |dL/dc| of a gate c on the
            neuron's channel where it is consumed, without any weight gradient.
        resource_weight: Weight of the resource term of `ranp-f` and `ranp-m`.
        seed: Seed of whatever is random (dropout while scoring, the criterion `random`).
        reduce: For `parameter`: sum, mean or max over a neuron's weights.
        step: Instead of `loss_fn`, a function of (model, batch) that returns the loss.
        stop_at_correlation: Use no more batches once the scores of n batches and those of their first half have at
            least this rank correlation, for n = 2, 4, 8, ... (times the number of processes); all if not given.
        progress: Called with ("scoring", batches done, batches in all or 0 where unknown).

    Returns:
        The scores.

    Raises:
        InputError: An unknown criterion or reading, no batches, a batch or a loss that cannot be used.
    """
    chosen = CRITERIA.get(criterion)
    if chosen is None:
        raise InputError(
            "criterion",
            got=repr(criterion),
            expected="a known criterion",
            hint=nearest(str(criterion), CRITERIA),
        )
    if importance not in get_args(Importance):
        raise InputError(
            "importance",
            got=repr(importance),
            expected="a known reading",
            hint=nearest(str(importance), get_args(Importance)),
        )
    resource_weight = DEFAULT_LAMBDA if resource_weight is None else resource_weight
    found: dict[str, Floats] = {}
    seen = 0
    stability: tuple[tuple[int, float], ...] = ()
    if chosen.importance:
        run = step_of(step, loss_fn)
        ranking = _ranking(chosen, graph, resource_weight, stop_at_correlation)
        watched: dict[str, Any] = {"seed": seed, "progress": progress, "ranking": ranking}
        if importance == "neuron" and chosen.reduce is None:
            found, seen = neuron_importance(model, graph, batches, run, **watched)
        else:
            how = chosen.reduce or reduce
            found, seen = parameter_importance(model, graph, batches, run, how, **watched)
        stability = tuple(ranking.seen)
    stages = chosen.stages(graph, found, resource_weight)
    last = list(stages.values())[-1] if stages else {}
    channels = _combine(graph, last, chosen.combine)
    if chosen.finish is not None:
        channels = chosen.finish(graph, channels, np.random.default_rng(seed))
    reading = importance if chosen.importance and chosen.reduce is None else "parameter" if chosen.reduce else ""
    return Scores(
        criterion=criterion,
        importance=reading,
        resource_weight=resource_weight if criterion.startswith("ranp") else 0.0,
        seed=seed,
        stages=stages,
        channels=channels,
        batches=seen,
        stability=stability,
    )


def _ranking(
    chosen: Criterion, graph: ChannelGraph, resource_weight: float, stop_at_correlation: float | None
) -> Ranking:
    """Watches the ranking of channels while batches are scored."""
    if stop_at_correlation is not None and not 0 < stop_at_correlation <= 1:
        raise InputError(
            "stop_at_correlation",
            got=str(stop_at_correlation),
            expected="a rank correlation in (0, 1]",
            hint="for example 0.99",
        )

    def channels(importance: Layers) -> Floats:
        return _combine(graph, list(chosen.stages(graph, importance, resource_weight).values())[-1], chosen.combine)

    return Ranking(channels, stop_at_correlation)


def _combine(graph: ChannelGraph, layers: Layers, how: Literal["sum", "max"]) -> Floats:
    """Scores of coupled channels add up over the layers that produce them."""
    channels = np.zeros(int(graph.offsets[-1]))
    for layer in graph.layers if layers else ():
        inside = layer.channels >= 0
        operation = np.add if how == "sum" else np.maximum
        operation.at(channels, layer.channels[inside], layers[layer.name][inside])
    return channels
