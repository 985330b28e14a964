"""Two networks train for the same wall time each, taking turns."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from ranp.experiments.data.mni152 import TISSUES
from ranp.experiments.demo._dice import dice_scores, predict
from ranp.experiments.demo._loop import Step

Tell = Callable[[str, int, int], None]
"""Told what is going on, how much of it is done, and of how much."""


@dataclass(eq=False)
class Runner:
    """One network in the race.

    Attributes:
        name: What it is called in tables and pictures.
        model: Trained in place.
        loop: Its training; each item is one step.
        curve: Dice over time: `seconds`, `steps` and `dice` of every evaluation.
    """

    name: str
    model: nn.Module
    loop: Iterator[Step] = field(default_factory=lambda: iter(()))
    last: Step = field(default_factory=lambda: Step(0, 0.0, 0.0))
    curve: list[dict[str, Any]] = field(default_factory=list)

    def run_until(self, seconds: float, tell: Callable[[float], None]) -> None:
        """Train until the training clock shows that time, or the training ends."""
        while self.last.seconds < seconds:
            step = next(self.loop, None)
            if step is None:
                return
            self.last = step
            tell(step.seconds)

    def evaluate(self, inputs: Tensor, truth: Tensor) -> float:
        """Add a point to the curve; returns the seconds that took, which no training clock counts."""
        start = time.perf_counter()
        dice = tissue_dice(predict(self.model, inputs, batch=8), truth)
        self.curve.append({"seconds": self.last.seconds, "steps": self.last.index, "dice": dice})
        return time.perf_counter() - start


def tissue_dice(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Dice by tissue, and their mean; the mean leaves the background out, which is easy and large."""
    scores = dice_scores(predicted, truth, len(TISSUES))
    return {**dict(zip(TISSUES, scores, strict=True)), "mean": sum(scores[1:]) / len(scores[1:])}


def race(runners: list[Runner], validation: tuple[Tensor, Tensor], *, seconds: float, checks: int, tell: Tell) -> None:
    """Train all runners, each for the same time, and evaluate them whenever a share of it is over.

    They take turns between evaluations, so that a machine which slows down slows all of them alike.

    Args:
        runners: Networks whose loops end after `seconds`, already evaluated once.
        validation: Inputs and truth that all are evaluated on.
        seconds: Training time of each.
        checks: Evaluations of each, evenly spaced.
        tell: Told the training clock of each.
    """
    for check in range(1, checks + 1):
        for runner in runners:
            runner.run_until(
                seconds * check / checks, partial(_tell_clock, tell, f"train the {runner.name} network", seconds)
            )
            runner.evaluate(*validation)


def _tell_clock(tell: Tell, what: str, seconds: float, clock: float) -> None:
    # Milliseconds, since progress is told in whole numbers.
    tell(what, round(1000 * min(clock, seconds)), round(1000 * seconds))
