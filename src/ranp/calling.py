"""Calling models whose inputs and outputs may be nested."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ranp.errors import InputError

_ATOMS = {type(None), bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format}


def call(model: nn.Module, inputs: Any) -> Any:
    """Run a model on inputs as `as_call` takes them."""
    args, kwargs = as_call(inputs)
    return model(*args, **kwargs)


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Model inputs as positional and keyword arguments: a tensor, a tuple (positional) or a dict (keywords).

    Lists and dicts within are copied: a forward may overwrite the entries of one that it is given.
    """
    inputs = tree_map(lambda leaf: leaf, inputs)
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise InputError(
        "inputs",
        got=type(inputs).__name__,
        expected="a tensor, a tuple (positional arguments) or a dict (keyword arguments)",
    )


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors within nested lists, tuples, mappings and dataclasses."""
    found: list[Tensor] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[Tensor]) -> None:
    if type(value) in _ATOMS:
        return
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            if type(item) not in _ATOMS:  # This is asked of every argument of every operator.
                _collect(item, found)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, found)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            _collect(getattr(value, entry.name), found)
