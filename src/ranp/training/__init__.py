"""What training is made of: loop, stream of batches, losses, Dice, and what a step takes in seconds and bytes."""

from ranp.training._dice import dice_scores, predict
from ranp.training._loop import Batch, Loss, Step, train, warm_up_then_decay
from ranp.training._measure import peak_step_bytes, step_seconds
from ranp.training._objectives import SCHEDULES, Objective, objective
from ranp.training._stream import Stream, length, seed_of, stream_loader

__all__ = [
    "SCHEDULES",
    "Batch",
    "Loss",
    "Objective",
    "Step",
    "Stream",
    "dice_scores",
    "length",
    "objective",
    "peak_step_bytes",
    "predict",
    "seed_of",
    "step_seconds",
    "stream_loader",
    "train",
    "warm_up_then_decay",
]
