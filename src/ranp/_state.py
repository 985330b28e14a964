"""What a model is made of, and leaving a caller's model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_TABLES = ("_parameters", "_buffers", "_modules")


def every_tensor(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, under each of their names."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found.update(model.named_buffers(remove_duplicate=False))
    return found


@contextmanager
def forked_random(model: nn.Module) -> Iterator[None]:
    """Put the random number generators of the CPU and of the model's devices back at the end."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Undo, at the end, what happens inside to a model, except for values of its parameters.

    Whatever is assigned to attributes (training modes among them), parameters or buffers of any module is undone, and
    buffers get their values back.
    """
    saved = [
        (module, dict(module.__dict__), {name: dict(module.__dict__[name]) for name in _TABLES})
        for module in model.modules()
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, attributes, tables in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for name, entries in tables.items():
                module.__dict__[name].clear()
                module.__dict__[name].update(entries)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
