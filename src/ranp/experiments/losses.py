"""What training minimises, and how the rate changes while it does."""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from ranp.experiments.demo._loop import warm_up_then_decay

Objective = Callable[[Tensor, Tensor], Tensor]


def objective(name: str, ignore_index: int) -> Objective:
    """The loss of that name, of outputs `(N, classes, ...)` and targets `(N, ...)`.

    Args:
        name: `cross-entropy` or `dice-cross-entropy`.
        ignore_index: Target that does not count.
    """
    known: dict[str, Callable[..., Tensor]] = {
        "cross-entropy": F.cross_entropy,
        "dice-cross-entropy": dice_cross_entropy,
    }
    return partial(known[name], ignore_index=ignore_index)


def dice_cross_entropy(outputs: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Cross entropy plus one minus the soft Dice of all classes but the first, averaged over them.

    Overlaps are taken over the whole batch, since a crop need not hold every class; a class that neither occurs nor
    is predicted counts as found.

    Example:
        >>> import torch
        >>> truth = torch.tensor([[0, 1, 1, -100]])
        >>> sure = 50.0 * F.one_hot(truth.clamp(min=0), 2).movedim(-1, 1)
        >>> round(float(dice_cross_entropy(sure, truth)), 4), round(float(dice_cross_entropy(-sure, truth)), 1)
        (0.0, 51.0)
    """
    counts = (targets != ignore_index)[:, None]
    truth = F.one_hot(targets.where(counts[:, 0], 0), outputs.shape[1]).movedim(-1, 1) * counts
    probabilities = outputs.softmax(dim=1) * counts
    over = [dim for dim in range(outputs.ndim) if dim != 1]
    overlap, total = (probabilities * truth).sum(over)[1:], (probabilities + truth).sum(over)[1:]
    dice = (2 * overlap + 1e-5) / (total + 1e-5)
    return F.cross_entropy(outputs, targets, ignore_index=ignore_index) + (1 - dice).mean()


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "cosine": lambda share: (1 + math.cos(math.pi * min(share, 1.0))) / 2,
    "linear": warm_up_then_decay,
}
"""Factors on the rate, of the share of the training that is done."""
