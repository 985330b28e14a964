"""Selection of neurons as in the published experiments: the methods, and their steps on plain arrays.

Source: Xu et al., RANP, 3DV 2020. `ranp.allocate` meets any budget and never empties a layer; the published selection
only knows a sparsity and may empty layers, so it is kept separate, for comparison.

Scores and kept neurons are mappings from layer names, in the order of the forward pass, to arrays with one value per
neuron. The neurons of the output layer of the model count, but are always kept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranp.criteria import ranp_f, ranp_m, weighted
from ranp.experiments.reproduce.networks import Method
from ranp.graph import ChannelGraph, Floats

Scores = Mapping[str, Floats]
Saliency = Mapping[str, NDArray[np.float32]]
"""For every layer the saliency of its parameters, `(neurons, inputs, kernel positions)`."""
Kept = dict[str, NDArray[np.bool_]]
Connections = Mapping[str, NDArray[np.bool_]]
Channels = Mapping[str, NDArray[np.integer]]


@dataclass(frozen=True)
class Evidence:
    """What the methods base their selection on: importance of the kind `parameter`, and the saliency of parameters."""

    graph: ChannelGraph
    importance: Scores
    saliency: Saliency
    resource_weight: float
    seed: int


@dataclass(frozen=True)
class Selection:
    """The neurons that a method keeps, in layers that it empties the best one.

    `max_sparsity` is the highest sparsity at which it empties no layer, if it empties one.
    """

    kept: Kept
    emptied: tuple[str, ...] = ()
    max_sparsity: float | None = None


def select(method: Method, evidence: Evidence, sparsity: float) -> Selection:
    """The neurons that a method keeps at a sparsity of the parameters (`snip`) or the neurons (all other methods).

    Neurons of coupled channels (connected by a residual sum or a depthwise layer) share one score, so that they are
    kept or removed together; the published experiments treated them separately.
    """
    scores = couple(evidence.graph, _scores(method, evidence))
    connections = _connections(method, evidence, scores)
    reads, writes = wiring(evidence.graph)

    def kept_at(sparsity: float) -> Kept:
        return without_dead_ends(connections(sparsity), reads, writes)

    if not (empty := empty_layers(kept_at(sparsity))):
        return Selection(kept_at(sparsity))
    kept: Kept = {name: np.any(link, axis=1) for name, link in connections(sparsity).items()}
    highest = max_sparsity(lambda sparsity: not empty_layers(kept_at(sparsity)))
    return Selection(with_best_neurons(kept, scores), tuple(empty), highest)


def _scores(method: Method, evidence: Evidence) -> Scores:
    """Scores of neurons by which the method selects them, and for `snip` those of the guard against empty layers."""
    if method == "random":
        return random_scores(evidence.importance, evidence.seed)
    rules = {"weighted": weighted, "ranp-m": ranp_m, "ranp-f": ranp_f}
    if method not in rules:
        return evidence.importance
    return rules[method](evidence.graph, evidence.importance, evidence.resource_weight)[method]


def couple(graph: ChannelGraph, scores: Scores) -> Scores:
    """Give every neuron the sum of the scores of all neurons that write its channel."""
    channels = np.zeros(graph.offsets[-1] + 1)
    for layer in graph.layers:
        np.add.at(channels, layer.channels, scores[layer.name])
    coupled = {}
    for layer in graph.layers:
        coupled[layer.name] = np.where(layer.channels >= 0, channels[layer.channels], scores[layer.name])
    return coupled


def _connections(method: Method, evidence: Evidence, scores: Scores) -> Callable[[float], Connections]:
    """The connections that the method keeps, as a function of the sparsity."""
    output = evidence.graph.layers[-1].name
    if method == "snip":
        return lambda sparsity: top_parameters(evidence.saliency, sparsity, output)
    top = top_of_each_layer if method == "layerwise" else top_of_network
    inputs = {name: saliency.shape[1] for name, saliency in evidence.saliency.items()}
    # Kept neurons are connected to every input.
    return lambda sparsity: {
        name: np.repeat(mask[:, None], inputs[name], axis=1) for name, mask in top(scores, sparsity, output).items()
    }


def wiring(graph: ChannelGraph) -> tuple[Channels, Channels]:
    """For every layer the channels that its inputs read, and those that its neurons write; -1 for none."""
    reads = {layer.weight: np.full(graph.shapes[layer.weight][1 - layer.out_dim], -1) for layer in graph.layers}
    for start, group in zip(graph.offsets, graph.groups, strict=False):
        channels = np.arange(start, start + group.width)
        for member in group.members:
            if member.reads:
                reads[member.parameter][member.positions] = channels[:, None]
    reads_of_layers = {layer.name: reads[layer.weight] for layer in graph.layers}
    return reads_of_layers, {layer.name: layer.channels for layer in graph.layers}


def kept_channels(graph: ChannelGraph, kept: Kept) -> dict[str, NDArray[np.int64]]:
    """For every group the channels that at least one kept neuron writes, as in plans."""
    flags = np.zeros(graph.offsets[-1] + 1, dtype=np.bool_)  # The last one is for -1: neurons that are always kept.
    for layer in graph.layers:
        flags[layer.channels[kept[layer.name]]] = True
    starts = zip(graph.groups, graph.offsets, strict=False)
    return {group.name: np.flatnonzero(flags[start : start + group.width]) for group, start in starts}


def top_of_network(scores: Scores, sparsity: float, output: str) -> Kept:
    """Keep the `int(N * (1 - sparsity))` highest scores among the N neurons of all layers, ties included."""
    threshold = _kth_largest(scores, sparsity)
    return {name: (score >= threshold) | (name == output) for name, score in scores.items()}


def top_of_each_layer(scores: Scores, sparsity: float, output: str) -> Kept:
    """Keep the `ceil(n * (1 - sparsity))` highest scores in every layer of n neurons, ties included."""
    kept = {}
    for name, score in scores.items():
        count = math.ceil(_count(score.size, sparsity))
        kept[name] = (score >= np.sort(score)[-count]) | (name == output)
    return kept


def random_scores(scores: Scores, seed: int) -> dict[str, Floats]:
    """A random rank for every neuron, so that `top_of_network` selects neurons at random."""
    sizes = [score.size for score in scores.values()]
    ranks = np.random.default_rng(seed).permutation(sum(sizes)).astype(np.float64)
    return dict(zip(scores, np.split(ranks, np.cumsum(sizes)[:-1]), strict=True))


def top_parameters(saliency: Saliency, sparsity: float, output: str) -> dict[str, NDArray[np.bool_]]:
    """SNIP: for each layer `(neurons, inputs)`, whether any parameter between the two is kept; in `output` all are."""
    threshold = _kth_largest(saliency, sparsity)
    return {name: (value.max(axis=2) >= threshold) | (name == output) for name, value in saliency.items()}


def without_dead_ends(connections: Connections, reads: Channels, writes: Channels) -> Kept:
    """Remove neurons without a path of kept neurons from the input of the model, or to its output.

    For each layer, `connections` has the shape `(neurons, inputs)`; `reads` and `writes` are those of `wiring`. The
    outputs of the model are kept.
    """
    links = {name: link.copy() for name, link in connections.items()}
    # One flag per channel; the index -1 refers to an additional last one, which is always set.
    written = np.zeros(max(int(channels.max()) for channels in writes.values()) + 2, dtype=np.bool_)
    written[-1] = True
    read = written.copy()
    for name, link in links.items():
        link &= written[reads[name]]
        written[writes[name]] |= link.any(axis=1)
    for name in reversed(links):
        links[name] &= read[writes[name]][:, None]
        np.logical_or.at(read, reads[name], links[name].any(axis=0))
    return {name: link.any(axis=1) | (writes[name] < 0) for name, link in links.items()}


def with_best_neurons(kept: Kept, scores: Scores) -> Kept:
    """The guard against empty layers: a layer without neurons keeps the one with the highest score."""
    guarded = {name: mask.copy() for name, mask in kept.items()}
    for name, mask in guarded.items():
        if not mask.any():
            mask[np.argmax(scores[name])] = True
    return guarded


def empty_layers(kept: Kept) -> list[str]:
    """Layers without any kept neuron; a selection with such layers is infeasible."""
    return [name for name, mask in kept.items() if not mask.any()]


def max_sparsity(feasible: Callable[[float], bool], resolution: float = 1e-4) -> float:
    """The highest feasible sparsity, by bisection between 0 and 1; at most `resolution` too low."""
    low, high = 0.0, 1.0
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (middle, high) if feasible(middle) else (low, middle)
    return low


def _kth_largest(values: Scores | Saliency, sparsity: float) -> float:
    flat = np.concatenate([value.ravel() for value in values.values()])
    count = int(_count(flat.size, sparsity))
    return float(np.partition(flat, -count)[-count]) if count else math.inf


def _count(size: int, sparsity: float) -> float:
    """`size * (1 - sparsity)`, rounded, because floating-point noise could change the integer part."""
    return round(size * (1 - sparsity), 9)
