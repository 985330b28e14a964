"""Scoring in several processes: each sees its own batches, and all add up what they found."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed


def several() -> bool:
    """Whether this is one of several processes of torch's default process group."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def add_up(totals: Mapping[str, Tensor], seen: int) -> tuple[dict[str, Tensor], int]:
    """Sums over all processes of torch's default process group, the same bit for bit in each; its own if there is none.

    Args:
        totals: Sums over this process's batches, by name.
        seen: How many batches those were.

    Returns:
        The same over the batches of all processes, on the CPU if there are several.
    """
    if not several():
        return dict(totals), seen
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, ({name: total.cpu() for name, total in totals.items()}, seen))
    added: dict[str, Tensor] = {}
    for found, _ in parts:
        for name, total in found.items():
            added[name] = added.get(name, torch.zeros_like(total)) + total
    return added, sum(count for _, count in parts)
