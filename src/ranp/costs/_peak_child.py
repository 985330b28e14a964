"""Run as a fresh process: reads a task from its parent, takes two training steps, prints the peak in bytes."""

import gc
import itertools
import pickle
import sys

import torch
from torch import nn

from ranp.costs.measure import reset_peak_memory, resident_bytes, timed_steps


def main() -> None:
    """Measure the one task on standard input."""
    packed_model, batch, loss_fn, make_optimizer = pickle.load(sys.stdin.buffer)
    _load_what_torch_loads_late()
    gc.collect()
    reset_peak_memory()
    before = resident_bytes(peak=False)
    model = pickle.loads(packed_model)
    for _ in itertools.islice(timed_steps(model, batch, loss_fn, make_optimizer(model.parameters())), 2):
        pass
    print(resident_bytes(peak=True) - before)


def _load_what_torch_loads_late() -> None:
    """A first step costs memory once, whatever the model: threads, kernels, the autograd engine."""
    tiny = nn.Conv3d(1, 1, 3)
    tiny(torch.zeros(1, 1, 8, 8, 8)).sum().backward()
    torch.optim.AdamW(tiny.parameters()).step()


if __name__ == "__main__":
    main()
