"""The scores of a network's channels, as plain arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

from ranp.deprecation import RenamedAttribute
from ranp.graph import Floats


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of neurons and of channels; higher means more important.

    Attributes:
        criterion: Name of the criterion.
        importance: Reading of importance, `parameter` or `neuron`; empty where the criterion needs none.
        resource_weight: Weight of the resource term; 0 where the criterion has none.
        seed: Seed of whatever is random.
        stages: For each step of the criterion, in order, the neurons' scores by layer, each of shape (neurons,).
        channels: Score of every channel of the graph, added up over the layers that produce it: shape (channels,).
        batches: Number of batches seen.
        stability: Rank correlation of the channels' scores over n batches and over the first half of them, as pairs
            (n, correlation) for n = 2, 4, 8, ...; empty if several processes scored.
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
