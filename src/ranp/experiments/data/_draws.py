"""Draws: the split of a data set by its own seed, and those of a sample by torch's global random state."""

import math
from collections.abc import Sequence

import torch
from torch import Generator

from ranp.errors import InputError


def split_names(names: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """Split names at random, in the same way whenever names and seed are the same.

    Args:
        names: What to split, in any order.
        share: Fraction that goes into the second part: at least one name, and never all.
        seed: Of the draw.

    Returns:
        The two parts, each in order.

    Raises:
        InputError: The share is not within (0, 1).

    Example:
        >>> first, second = split_names(["d", "a", "c", "b"], 0.25, seed=0)
        >>> sorted(first + second), len(second)
        (['a', 'b', 'c', 'd'], 1)
    """
    if not 0 < share < 1:
        raise InputError("validation", got=f"a share of {share}", expected="a fraction between 0 and 1")
    ordered = sorted(names)
    order = torch.randperm(len(ordered), generator=Generator().manual_seed(seed)).tolist()
    count = min(max(1, math.floor(len(ordered) * share + 0.5)), len(ordered) - 1)
    second = {ordered[index] for index in order[: max(count, 0)]}
    return [name for name in ordered if name not in second], sorted(second)


def drawn_generator() -> Generator:
    """A generator of one sample's draws, seeded from torch's global random state."""
    return Generator().manual_seed(drawn_seed())


def drawn_seed() -> int:
    """A seed for one sample's draws from torch's global random state, which moves on."""
    return int(torch.randint(2**31, ()))
