"""How many threads to compute with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def quickest_threads(*, rounds: int = 5) -> Iterator[int]:
    """Compute with one thread or with as many as torch is set to, whichever is quicker now.

    Threads wait for each other several times in every layer. Where other work holds a core, the waiting costs many
    times what the second thread brings.

    Args:
        rounds: Trials of each; their sum counts, so that a core taken now and then is noticed.

    Yields:
        The number of threads; it is put back afterwards.
    """
    before = torch.get_num_threads()
    try:
        times = dict.fromkeys((before, 1), 0.0)
        _trial()
        for count in list(times) * rounds:
            torch.set_num_threads(count)
            start = time.perf_counter()
            _trial()
            times[count] += time.perf_counter() - start
        quickest = min(times, key=lambda count: times[count])
        torch.set_num_threads(quickest)
        yield quickest
    finally:
        torch.set_num_threads(before)


def _trial() -> None:
    """Forward and backward through a few narrow layers, like those of a pruned network."""
    layers = [module for _ in range(4) for module in (nn.Conv3d(16, 16, 3, padding=1), nn.ReLU())]
    nn.Sequential(*layers)(torch.zeros(4, 16, 16, 16, 16)).sum().backward()
