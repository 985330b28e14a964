"""Calling models whose inputs and outputs may be nested."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ranp.errors import InputError


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


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors within nested lists, tuples, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors_in(getattr(value, entry.name))
