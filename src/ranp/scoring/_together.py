"""Averages over batches, in one process or in several, of which each sees its own batches."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed

from ranp.graph import Floats
from ranp.scoring._stability import Ranking

# From sums over a number of batches to the importance of every layer's neurons.
Average: TypeAlias = Callable[[Mapping[str, Tensor], int], dict[str, Floats]]


def averaged(
    steps: Iterable[None], totals: Mapping[str, Tensor], average: Average, ranking: Ranking
) -> tuple[dict[str, Floats], int]:
    """The importance over all batches of all processes, or over as many as it takes for the ranking to be stable.

    The processes meet whenever the ranking is due. One that has used up its batches goes on meeting the others until
    all have, so it does not matter whose share is larger.

    Args:
        steps: Adds one of this process's batches to the totals with each step; at least one.
        totals: The sums over this process's batches so far, by name.
        average: What they mean.
        ranking: Compares, and tells when it is stable.

    Returns:
        For each layer an array of shape (neurons,), and the number of batches: the same in each process.
    """
    for seen, _ in enumerate(steps, 1):
        if ranking.due(seen):
            added, count, _ = _add_up(totals, seen, last=False)
            if ranking.enough(count, found := average(added, count)):
                return found, count
    while True:
        added, count, last = _add_up(totals, seen, last=True)
        found = average(added, count)
        if last or ranking.enough(count, found):
            return found, count


def _add_up(totals: Mapping[str, Tensor], seen: int, *, last: bool) -> tuple[Mapping[str, Tensor], int, bool]:
    """Sums over all processes of torch's default process group, the same bit for bit in each; its own if there is none.

    Args:
        totals: Sums over this process's batches, by name.
        seen: How many batches those were.
        last: Whether there are no more.

    Returns:
        The same over the batches of all processes, on the CPU if there are several.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return totals, seen, last
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, ({name: total.cpu() for name, total in totals.items()}, seen, last))
    added: dict[str, Tensor] = {}
    for found, _, _ in parts:
        for name, total in found.items():
            added[name] = added.get(name, torch.zeros_like(total)) + total
    return added, sum(count for _, count, _ in parts), all(done for *_, done in parts)
