"""The scores of a network's channels, as plain arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ranp.deprecation import RenamedAttribute
from ranp.graph import ChannelGraph, Floats, Ints


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of neurons and of channels; higher means more important.

    Attributes:
        criterion: Name of the criterion.
        importance: How importance was estimated, `parameter` or `neuron`; empty where the criterion needs none.
        resource_weight: Weight of the resource term; 0 where the criterion has none.
        seed: Seed of whatever is random.
        stages: For each step of the criterion, in order, the neurons' scores by layer, each of shape (neurons,).
        channels: Score of every channel of the graph, added up over the layers that produce it: shape (channels,).
        batches: Number of batches seen.
        stability: Rank correlation of the channels' scores over n batches and over the first half of them, as pairs
            (n, correlation) for n = 2, 4, 8, ...; in several processes n counts the batches of all.
    """

    criterion: str
    importance: str
    resource_weight: float
    seed: int
    stages: Mapping[str, Mapping[str, Floats]]
    channels: Floats
    batches: int
    stability: tuple[tuple[int, float], ...] = ()
    lam = RenamedAttribute("resource_weight")


def rank_within_groups(graph: ChannelGraph, channels: Floats) -> Ints:
    """Rank of every channel in its group by score, of shape (channels,): 0 is the best, and the first of equals."""
    order = np.lexsort((-channels, graph.group_of))
    ranks = np.empty_like(order)
    # The order keeps groups together, so its entry i belongs to the group of channel i.
    ranks[order] = np.arange(len(order)) - graph.offsets[graph.group_of]
    return ranks
