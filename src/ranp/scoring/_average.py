"""The average over batches: of one process or of several, and over as many as it takes for a stable ranking."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, distributed

from ranp.arguments import Must
from ranp.criteria import LayerScores
from ranp.graph import Floats

ProcessGroup: TypeAlias = Annotated[
    Any,
    Must(
        lambda group: distributed.is_available() and isinstance(group, distributed.ProcessGroup),
        "a torch.distributed.ProcessGroup that this process belongs to",
        "for all processes give torch.distributed.group.WORLD, once the default group is initialized",
    ),
]
"""Processes that score together. (Not every build of torch has the class.)"""


Correlation: TypeAlias = Annotated[
    float, Must(lambda value: 0 < value <= 1, "a rank correlation in (0, 1]", "for example 0.99")
]


class Estimator(Protocol):
    """A way to estimate the importance of neurons; a context manager that observes the model while it is active.

    `trained` names the parameters that need gradients, `totals` are sums over this process's batches so far.
    """

    trained: set[str]
    totals: dict[str, Tensor]

    def __enter__(self) -> Any: ...
    def __exit__(self, *exception: Any) -> None: ...

    def check_forward(self) -> None:
        """Refuse, after a forward pass, a model whose importance cannot be estimated in this way."""

    def add(self, loss: Tensor) -> None:
        """Run the backward pass of one batch and add its result to the sums."""

    def importance(self, totals: Mapping[str, Tensor], batches: int) -> dict[str, Floats]:
        """Importance of every layer's neurons, of shape (neurons,), given sums over a number of batches."""


@dataclass
class Ranking:
    """Compares the scores of n batches with those of the first half of them, for n = 2, 4, 8, ...

    In several processes n counts the batches of all: with two that see as many each, n = 4, 8, 16, ...
    Averages over n and n + 1 batches are similar whatever the data, once n is large; those over n and n / 2 are not.

    Attributes:
        score: From the layers' importance to scores of channels.
        stop_at_correlation: Rank correlation from which on more batches are not needed; None to use all.
        seen: For every comparison the number of batches and the rank correlation.
    """

    score: Callable[[LayerScores], Floats]
    stop_at_correlation: float | None
    seen: list[tuple[int, float]] = field(default_factory=list)
    _before: Floats | None = None

    def is_stable(self, batches: int, importance: LayerScores) -> bool:
        """Compare with the previous scores, given the importance over the batches of all processes so far."""
        before, self._before = self._before, self.score(importance)
        if before is None:
            return False
        self.seen.append((batches, rank_correlation(before, self._before)))
        return self.stop_at_correlation is not None and self.seen[-1][1] >= self.stop_at_correlation


def averaged(
    losses: Iterable[Tensor], estimator: Estimator, ranking: Ranking, group: ProcessGroup | None
) -> tuple[dict[str, Floats], int]:
    """The importance over all batches of all processes, or over as many as it takes for the ranking to be stable.

    The processes of a group communicate after 1, 2, 4, 8, ... batches each. One that has used up its batches continues
    to do so until all have, so their numbers of batches may differ.

    Returns the same in each process: for each layer an array of shape (neurons,), and the number of batches.
    """
    for seen, loss in enumerate(losses, 1):
        estimator.add(loss)
        if not seen & (seen - 1):
            totals, count, _ = _add_up(estimator.totals, seen, group, last=False)
            if ranking.is_stable(count, importance := estimator.importance(totals, count)):
                return importance, count
    while True:
        totals, count, last = _add_up(estimator.totals, seen, group, last=True)
        importance = estimator.importance(totals, count)
        if last or ranking.is_stable(count, importance):
            return importance, count


def _add_up(
    totals: Mapping[str, Tensor], seen: int, group: ProcessGroup | None, *, last: bool
) -> tuple[Mapping[str, Tensor], int, bool]:
    """Sums, numbers of batches, and whether no process has more, over the processes of a group, if one is given.

    The result is the same bit for bit in each process; with several, the sums are on the CPU.
    """
    if group is None:
        return totals, seen, last
    parts: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(parts, ({name: total.cpu() for name, total in totals.items()}, seen, last), group)
    added: dict[str, Tensor] = {}
    for found, _, _ in parts:
        for name, total in found.items():
            added[name] = added.get(name, torch.zeros_like(total)) + total
    return added, sum(count for _, count, _ in parts), all(done for *_, done in parts)


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation; equal values share their mean rank, and 1 where nothing can be ranked."""
    if not len(first):
        return 1.0
    x, y = (ranks - ranks.mean() for ranks in (_ranks(first), _ranks(second)))
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return round(float((x * y).sum()) / scale, 12) if scale else 1.0


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks
