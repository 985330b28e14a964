"""Values of options: shapes, budgets, arguments of networks."""

import ast
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ranp.budget import Budget
from ranp.costs import RESOURCES
from ranp.errors import InputError, nearest
from ranp.import_by_name import build_network, built_in


def parse_network(model: str, arguments: Sequence[str] | None, seed: int) -> nn.Module:
    """The network of that name, built with these arguments."""
    return build_network(model, parse_arguments(arguments), seed=seed)


def parse_inputs(model: str, texts: Sequence[str] | None) -> tuple[torch.Tensor, ...]:
    """Zeros of the given shapes, or of the usual shape of a built-in network."""
    shapes = [_parse_shape(text) for text in texts or ()]
    if ":" not in model:
        shapes = shapes or [built_in(model, "model").shape]
    if not shapes:
        raise InputError("--input", "the shape of every input is needed", hint="for example --input 1,1,64,64,64")
    try:
        return tuple(torch.zeros(shape) for shape in shapes)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise InputError("--input", f"tensors of shape {shapes} are too large for the memory") from error


def _parse_shape(text: str) -> tuple[int, ...]:
    """A shape, such as `1,1,64,64,64`."""
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        hint = "give positive sizes separated by commas, such as --input 1,1,64,64,64"
        raise InputError("--input", f"{text!r} is not a shape", hint=hint)
    return tuple(int(size) for size in sizes)


def parse_budget(texts: Sequence[str]) -> Budget:
    """A budget; limits are fractions, percentages or amounts, such as `params=0.1`, `macs=5%` or `step_time=80ms`."""
    limits: dict[str, Any] = {}
    known = [resource.limit for resource in RESOURCES]
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError("--budget", f"{text!r} does not limit a known resource", hint=nearest(name, known))
        if name in limits:
            raise InputError("--budget", f"{name} is given twice")
        limits[name] = value
    return Budget(**limits)


def parse_arguments(texts: Sequence[str] | None) -> dict[str, Any]:
    """Arguments of a network, such as `width=16`; values that are neither JSON nor Python literals are strings."""
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError("--set", f"{text!r} is not of the form name=value", hint="for example --set width=16")
        if name in found:
            raise InputError("--set", f"{name} is given twice")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
