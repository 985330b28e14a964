"""A short plain training loop, the Dice score, and what a training step takes in seconds and bytes."""

from ranp.training._dice import dice_scores, predict
from ranp.training._loop import Batch, Loss, Step, train, warm_up_then_decay
from ranp.training._measure import peak_step_bytes, step_seconds

__all__ = [
    "Batch",
    "Loss",
    "Step",
    "dice_scores",
    "peak_step_bytes",
    "predict",
    "step_seconds",
    "train",
    "warm_up_then_decay",
]
