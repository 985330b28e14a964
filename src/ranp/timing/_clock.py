"""Clocks for the operators of a step: of the CPU, or of the GPU that executes them later."""

import time
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks points in time on a device."""

    def mark(self) -> Any:
        """Note this point in time."""

    def seconds(self, begin: Any, end: Any) -> float:
        """The time between two marks."""

    def wait(self) -> None:
        """Wait until the device has done everything."""

    def fill_queue(self, seconds: float) -> None:
        """Keep the device busy for a while, so that operators queue up and run back to back."""


class CpuClock:
    """The CPU executes operators when they are called."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        return end - begin

    def wait(self) -> None:
        pass

    def fill_queue(self, seconds: float) -> None:
        pass


class CudaClock:
    """Events in the queue of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return float(begin.elapsed_time(end)) / 1000

    def wait(self) -> None:
        torch.cuda.synchronize(self._device)

    def fill_queue(self, seconds: float) -> None:
        # The clock of current GPUs runs at about 2 GHz.
        with torch.cuda.device(self._device):
            torch.cuda._sleep(int(2e9 * seconds))


def clock_of(device: torch.device) -> Clock:
    """The clock of a device."""
    return CudaClock(device) if device.type == "cuda" else CpuClock()
