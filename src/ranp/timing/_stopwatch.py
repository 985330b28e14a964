"""Timing training steps, and whatever else runs on a device, in turns."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ranp.costs.time import BUSY_SPREAD
from ranp.costs.training import TrainingSetup
from ranp.timing._clock import clock_of
from ranp.timing._operators import StepRecord
from ranp.timing._recording import StepRecorder

LEAST_ROUNDS = 3
"""Repetitions of everything that is timed; three times as many on a busy device."""


class Stopwatch:
    """Times functions that run on a device.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._clock = device, clock_of(device)

    def timed(self, run: Callable[[], object]) -> tuple[float, float]:
        """Seconds until the device is done, and how many of them the CPU needed to start the operators of a GPU."""
        self._clock.wait()
        begin = time.perf_counter()
        run()
        launched = time.perf_counter() - begin
        self._clock.wait()
        return time.perf_counter() - begin, launched if self._device.type == "cuda" else 0.0

    def recorded(self, run: Callable[[], object], launch_seconds: float = 0.0) -> StepRecord:
        """The operators that a function runs, and the seconds of each."""
        recorder = StepRecorder(self._clock)
        # Recording takes time on the CPU as well.
        self._clock.fill_queue(5 * launch_seconds)
        with recorder:
            run()
        return StepRecord(recorder.operators, recorder.seconds())

    def in_turns(self, runs: Mapping[str, Callable[[], object]], limit_seconds: float) -> dict[str, list[float]]:
        """Seconds of some functions, which take turns, so that other load on the machine affects all of them alike.

        Args:
            runs: The functions by name.
            limit_seconds: Start no further round after this time, but three in any case.
        """
        found: dict[str, list[float]] = {name: [] for name in runs}
        begin, rounds = time.perf_counter(), 0
        while rounds < LEAST_ROUNDS or (
            time.perf_counter() - begin < limit_seconds and rounds < 3 * LEAST_ROUNDS and _any_busy(found)
        ):
            for name, run in runs.items():
                run()  # Those of the others have displaced what is in the caches.
                found[name].append(self.timed(run)[0])
            rounds += 1
        return found


def _any_busy(found: Mapping[str, Sequence[float]]) -> bool:
    return any(spread_of(seconds) > BUSY_SPREAD for seconds in found.values())


def spread_of(seconds: Sequence[float]) -> float:
    """How much longer than the shortest of repeated measurements their median is, relatively."""
    return statistics.median(seconds) / min(seconds) - 1 if seconds else 0.0


def training_step(model: nn.Module, setup: TrainingSetup, batch: Any) -> Callable[[], None]:
    """A function that takes a training step of a model, which is prepared for that in place.

    Args:
        model: The model.
        setup: How it is trained.
        batch: The batch, on the model's device.
    """
    prepared = setup.prepare(model)
    optimizer = setup.make_optimizer(prepared)

    def step() -> None:
        setup.run_step(prepared, batch, optimizer)

    return step
