"""Training losses and learning rate schedules, by the names that recipes and the command line use."""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from ranp.errors import InputError, nearest

Objective = Callable[[Tensor, Tensor], Tensor]
"""A scalar loss of outputs and targets."""


def objective(name: str, ignore_index: int = -100) -> Objective:
    """The loss of that name in `LOSSES`; targets of the class `ignore_index` do not contribute to it.

    It takes outputs `(N, classes, ...)` and targets `(N, ...)`; `mse`, two tensors of one shape.
    """
    if name not in LOSSES:
        raise InputError("loss", f"no loss is named {name!r}", hint=nearest(name, LOSSES))
    return partial(LOSSES[name], ignore_index=ignore_index)


def dice_cross_entropy(outputs: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Cross entropy plus one minus the mean soft Dice of all classes except the first, the background.

    The sums of the soft Dice run over the whole batch, since a crop need not contain every class; a class that is
    neither present nor predicted has a Dice of 1. Without ignored targets this is MONAI's `DiceCELoss` with
    `include_background=False, batch=True`, which cannot ignore targets.
    """
    valid = (targets != ignore_index)[:, None]
    truth = F.one_hot(targets.where(valid[:, 0], 0), outputs.shape[1]).movedim(-1, 1) * valid
    probabilities = outputs.softmax(dim=1) * valid
    dims = [dim for dim in range(outputs.ndim) if dim != 1]
    overlap, total = (probabilities * truth).sum(dims)[1:], (probabilities + truth).sum(dims)[1:]
    dice = (2 * overlap + 1e-5) / (total + 1e-5)
    return F.cross_entropy(outputs, targets, ignore_index=ignore_index) + (1 - dice).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": F.cross_entropy,
    "dice-cross-entropy": dice_cross_entropy,
    # Its targets are values and not classes, so that none is ignored.
    "mse": lambda outputs, targets, ignore_index: F.mse_loss(outputs, targets),
}
"""Losses of outputs and targets with the keyword argument `ignore_index`."""


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: (1 + math.cos(math.pi * min(progress, 1.0))) / 2,
    "linear": lambda progress: min(1.0, progress / 0.05 + 0.02) * max(0.0, 1.0 - progress),
}
"""Factors on the learning rate as functions of the fraction of the training that is done.

`linear` warms up in the first twentieth of the training, then decays to zero.
"""
