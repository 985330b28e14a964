"""A device whose speed is known: it computes convolutions on blocks of channels, and moves data at a fixed rate."""

import math
from collections.abc import Callable

import pytest

from ranp.timing import CpuClock, Recorded, StepRecord, StepRecorder, Stopwatch

BLOCK = 16


def operator_seconds(operator: Recorded) -> float:
    """Seconds of one operator."""
    if operator.inputs == operator.outputs == 1:
        return 2e-7 + 1e-9 * sum(operator.volumes)
    wide = [math.ceil(channels / BLOCK) * BLOCK for channels in (operator.inputs, operator.outputs)]
    reads = operator.volumes[0] * (operator.inputs + operator.outputs)
    return 1e-6 + 2e-9 * reads + 1e-10 * operator.volumes[0] * wide[0] * wide[1]


def simulate(monkeypatch: pytest.MonkeyPatch, rest_seconds: float = 1e-3) -> None:
    """Have steps take the time that they take on this device, of which a part belongs to no operator."""

    def recorded(watch: Stopwatch, step: Callable[[], None], launch_seconds: float = 0.0) -> StepRecord:
        recorder = StepRecorder(CpuClock())
        with recorder:
            step()
        return StepRecord(recorder.operators, [operator_seconds(operator) for operator in recorder.operators])

    def timed(watch: Stopwatch, step: Callable[[], None]) -> tuple[float, float]:
        return sum(recorded(watch, step).seconds) + rest_seconds, 0.0

    monkeypatch.setattr(Stopwatch, "recorded", recorded)
    monkeypatch.setattr(Stopwatch, "timed", timed)
