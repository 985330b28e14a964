"""What a model is made of, copying it, and leaving a caller's model as it was."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ranp.errors import TraceError

_DICTS = (dict, OrderedDict)
_TABLES = ("_parameters", "_buffers", "_modules")


def every_tensor(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, under each of their names."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found.update(model.named_buffers(remove_duplicate=False))
    return found


def copied(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """A deep copy in which each parameter and buffer is what `convert` makes of it.

    No value is copied on the way, and what the model holds under several names the copy holds under the same ones.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(convert(parameter).detach(), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = convert(buffer).detach()
    for module in model.modules():
        for value in vars(module).values():
            if type(value) in _DICTS and not value:
                # A module holds a dozen empty dicts of hooks; copying them takes most of the time.
                memo[id(value)] = type(value)()
            elif isinstance(value, Tensor) and not value.is_leaf:
                # Computed, by weight norm say, and refused by deepcopy.
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise TraceError(
            "model",
            got=f"something that cannot be copied ({type(error).__name__}: {error})",
            expected="a model that copy.deepcopy takes",
        ) from error


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
