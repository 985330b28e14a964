"""Which neurons stay, as the published experiments decided it, on plain arrays.

Source: Xu et al., RANP, 3DV 2020. `ranp.allocate` meets any budget and never empties a layer; the
published selection knows a sparsity only and may empty layers, so it is kept apart, for comparison.

Scores and kept neurons are mappings from layer names, in the order of the forward pass, to arrays of one
value per neuron. The model's output layer counts among the neurons but always keeps all of its own.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ranp.graph import Floats

Scores = Mapping[str, Floats]
Saliency = Mapping[str, NDArray[np.float32]]
Kept = dict[str, NDArray[np.bool_]]
Connections = Mapping[str, NDArray[np.bool_]]
Channels = Mapping[str, NDArray[np.integer]]


def top_of_network(scores: Scores, sparsity: float, output: str) -> Kept:
    """Keep the `int(N * (1 - sparsity))` highest scores among the N neurons of all layers, ties included.

    Example:
        >>> kept = top_of_network({"a": np.array([3.0, 1.0]), "b": np.array([2.0, 0.0])}, 0.5, output="b")
        >>> kept["a"].tolist(), kept["b"].tolist()
        ([True, False], [True, True])
    """
    threshold = _kth_largest(scores, sparsity)
    return {name: (score >= threshold) | (name == output) for name, score in scores.items()}


def top_of_each_layer(scores: Scores, sparsity: float, output: str) -> Kept:
    """Keep in every layer of n neurons the `ceil(n * (1 - sparsity))` highest scores, ties included."""
    kept = {}
    for name, score in scores.items():
        count = math.ceil(_share(score.size, sparsity))
        kept[name] = (score >= np.sort(score)[-count]) | (name == output)
    return kept


def random_scores(scores: Scores, seed: int) -> dict[str, Floats]:
    """A random rank for every neuron, so that `top_of_network` keeps neurons at random."""
    sizes = [score.size for score in scores.values()]
    ranks = np.random.default_rng(seed).permutation(sum(sizes)).astype(np.float64)
    return dict(zip(scores, np.split(ranks, np.cumsum(sizes)[:-1]), strict=True))


def top_parameters(saliency: Saliency, sparsity: float, output: str) -> dict[str, NDArray[np.bool_]]:
    """SNIP on single parameters, then what it leaves between neurons.

    Args:
        saliency: per layer `(neurons, inputs, kernel positions)`.
        sparsity: the fraction of parameters to remove.
        output: the layer that keeps all.

    Returns:
        Per layer `(neurons, inputs)`: whether any parameter of the neuron reads the input.
    """
    threshold = _kth_largest(saliency, sparsity)
    return {name: (value.max(axis=2) >= threshold) | (name == output) for name, value in saliency.items()}


def reading_all(kept: Kept, inputs: Mapping[str, int]) -> dict[str, NDArray[np.bool_]]:
    """The connections `(neurons, inputs)` of layers whose kept neurons read every input."""
    return {name: np.repeat(mask[:, None], inputs[name], axis=1) for name, mask in kept.items()}


def without_dead_ends(connections: Connections, reads: Channels, makes: Channels) -> Kept:
    """Remove neurons that no kept neuron feeds and those that no kept neuron reads.

    Args:
        connections: per layer `(neurons, inputs)`, whether the neuron reads the input.
        reads: per layer the channel at each of its inputs, -1 for the model's own inputs.
        makes: per layer the channel that each of its neurons makes, -1 for the model's outputs, which stay.

    Example:
        >>> links = {"a": np.array([[True], [True]]), "b": np.array([[True, False]])}
        >>> reads = {"a": np.array([-1]), "b": np.array([0, 1])}
        >>> makes = {"a": np.array([0, 1]), "b": np.array([-1])}
        >>> without_dead_ends(links, reads, makes)["a"].tolist()
        [True, False]
    """
    links = {name: link.copy() for name, link in connections.items()}
    # One flag per channel and a last one, always set, that -1 points to.
    fed = np.zeros(max(int(made.max()) for made in makes.values()) + 2, dtype=np.bool_)
    fed[-1] = True
    read = fed.copy()
    for name, link in links.items():
        link &= fed[reads[name]]
        fed[makes[name]] |= link.any(axis=1)
    for name in reversed(links):
        links[name] &= read[makes[name]][:, None]
        np.logical_or.at(read, reads[name], links[name].any(axis=0))
    return {name: link.any(axis=1) | (makes[name] < 0) for name, link in links.items()}


def with_best_neurons(kept: Kept, scores: Scores) -> Kept:
    """The guard: a layer that lost all its neurons keeps the one of the highest score."""
    guarded = {name: mask.copy() for name, mask in kept.items()}
    for name, mask in guarded.items():
        if not mask.any():
            mask[np.argmax(scores[name])] = True
    return guarded


def empty_layers(kept: Kept) -> list[str]:
    """The layers that lost all their neurons; with any, a selection is infeasible."""
    return [name for name, mask in kept.items() if not mask.any()]


def max_sparsity(feasible: Callable[[float], bool], resolution: float = 1e-4) -> float:
    """The highest sparsity that is feasible, by bisection between 0 and 1.

    Args:
        feasible: tells of a sparsity; true up to some sparsity, false from there on.
        resolution: of the result, which is feasible itself unless it is 0.
    """
    low, high = 0.0, 1.0
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (middle, high) if feasible(middle) else (low, middle)
    return low


def _kth_largest(values: Scores | Saliency, sparsity: float) -> float:
    flat = np.concatenate([value.ravel() for value in values.values()])
    count = int(_share(flat.size, sparsity))
    return float(np.partition(flat, -count)[-count]) if count else math.inf


def _share(size: int, sparsity: float) -> float:
    """`size * (1 - sparsity)` without the last digits' noise, which would shift a whole count."""
    return round(size * (1 - sparsity), 9)
