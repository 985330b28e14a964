"""The methods of the published tables, each as what connections it leaves at any sparsity."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranp.experiments.reproduce import _selection as selection
from ranp.experiments.reproduce._networks import Method
from ranp.graph import ChannelGraph
from ranp.scoring import normalize_layer_means, reweight_by_resource


@dataclass(frozen=True)
class Evidence:
    """All that the methods decide on.

    Attributes:
        graph: of the full network.
        importance: of neurons, in the `parameter` reading.
        saliency: of parameters, per layer `(neurons, inputs, kernel positions)`.
        resource_weight: lambda of RANP-m and RANP-f.
        seed: of random pruning.
    """

    graph: ChannelGraph
    importance: selection.Scores
    saliency: selection.Saliency
    resource_weight: float
    seed: int


@dataclass(frozen=True)
class Selection:
    """What a method keeps.

    Attributes:
        kept: the neurons kept; of the guarded selection where the method empties layers.
        emptied: the layers that the method empties.
        max_sparsity: the highest sparsity at which it empties none, where it empties one.
    """

    kept: selection.Kept
    emptied: tuple[str, ...] = ()
    max_sparsity: float | None = None


def select(method: Method, evidence: Evidence, sparsity: float) -> Selection:
    """What a method keeps at a sparsity: of parameters for `snip`, of neurons for all others.

    Neurons of coupled channels (which a residual sum or a depthwise layer ties) share one score, so they stay or go
    together; the published experiments treated them apart.
    """
    scores = coupled(evidence.graph, _scores(method, evidence))
    links = _links(method, evidence, scores)
    reads, makes = wiring(evidence.graph)

    def emptied(sparsity: float) -> tuple[str, ...]:
        return tuple(selection.empty_layers(selection.without_dead_ends(links(sparsity), reads, makes)))

    if not (empty := emptied(sparsity)):
        return Selection(selection.without_dead_ends(links(sparsity), reads, makes))
    chosen: selection.Kept = {name: np.any(link, axis=1) for name, link in links(sparsity).items()}
    most = selection.max_sparsity(lambda sparsity: not emptied(sparsity))
    return Selection(selection.with_best_neurons(chosen, scores), empty, most)


def _scores(method: Method, evidence: Evidence) -> selection.Scores:
    """Scores of neurons: what decides, and for `snip` what the guard goes by."""
    layers, importance = evidence.graph.layers, evidence.importance
    if method == "random":
        return selection.random_scores(importance, evidence.seed)
    if method == "weighted":
        return normalize_layer_means(importance)
    if method == "ranp-m":
        elements = {layer.name: float(layer.output_elements) for layer in layers}
        return reweight_by_resource(normalize_layer_means(importance), elements, evidence.resource_weight)
    if method == "ranp-f":
        macs = {layer.name: float(layer.macs) for layer in layers}
        return reweight_by_resource(normalize_layer_means(importance), macs, evidence.resource_weight)
    return importance


def coupled(graph: ChannelGraph, scores: selection.Scores) -> selection.Scores:
    """Scores in which every neuron has the sum over all neurons of its channel."""
    channels = np.zeros(graph.offsets[-1] + 1)
    for layer in graph.layers:
        np.add.at(channels, layer.channels, scores[layer.name])
    return {
        layer.name: np.where(layer.channels >= 0, channels[layer.channels], scores[layer.name])
        for layer in graph.layers
    }


def _links(method: Method, evidence: Evidence, scores: selection.Scores) -> Callable[[float], selection.Connections]:
    output = evidence.graph.layers[-1].name
    if method == "snip":
        return lambda sparsity: selection.top_parameters(evidence.saliency, sparsity, output)
    top = selection.top_of_each_layer if method == "layerwise" else selection.top_of_network
    inputs = {name: saliency.shape[1] for name, saliency in evidence.saliency.items()}
    return lambda sparsity: selection.reading_all(top(scores, sparsity, output), inputs)


def wiring(graph: ChannelGraph) -> tuple[selection.Channels, selection.Channels]:
    """For every layer the channels that its inputs read and those that its neurons make, -1 for none."""
    reads = {layer.weight: np.full(graph.shapes[layer.weight][1 - layer.out_dim], -1) for layer in graph.layers}
    for start, group in zip(graph.offsets, graph.groups, strict=False):
        channels = np.arange(start, start + group.width)
        for member in group.members:
            if member.reads:
                reads[member.parameter][member.positions] = channels[:, None]
    return (
        {layer.name: reads[layer.weight] for layer in graph.layers},
        {layer.name: layer.channels for layer in graph.layers},
    )


def kept_channels(graph: ChannelGraph, kept: selection.Kept) -> dict[str, NDArray[np.int64]]:
    """Per group the channels that any kept neuron makes, as plans say it."""
    stays = np.zeros(graph.offsets[-1] + 1, dtype=np.bool_)  # the last for -1: neurons that always stay
    for layer in graph.layers:
        stays[layer.channels[kept[layer.name]]] = True
    starts = zip(graph.groups, graph.offsets, strict=False)
    return {group.name: np.flatnonzero(stays[start : start + group.width]) for group, start in starts}
