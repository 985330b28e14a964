"""From texts on the command line to values."""

import ast
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch

from ranp.budget import Budget
from ranp.errors import InputError, nearest
from ranp.import_by_name import built_in


def parse_inputs(model: str, texts: Sequence[str] | None) -> tuple[torch.Tensor, ...]:
    """Zeros of the shapes that were given, or of a built-in network's usual shape.

    Args:
        model: How the network is named.
        texts: Shapes.

    Raises:
        InputError: A text that is no shape, or none for a network that is not built in.

    Example:
        >>> [tuple(zeros.shape) for zeros in parse_inputs("nets.py:build", ["2,3,9,9"])]
        [(2, 3, 9, 9)]
    """
    shapes = [parse_shape(text) for text in texts or ()]
    if ":" not in model:
        shapes = shapes or [built_in(model, "model").shape]
    if not shapes:
        raise InputError("--input", got="nothing", expected="the shape of every input", hint="--input 1,1,64,64,64")
    try:
        return tuple(torch.zeros(shape) for shape in shapes)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise InputError("--input", got=str(shapes), expected="sizes that memory can hold") from error


def parse_shape(text: str) -> tuple[int, ...]:
    """A shape.

    Example:
        >>> parse_shape("1,1,64,64,64")
        (1, 1, 64, 64, 64)
    """
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise InputError("--input", got=repr(text), expected="positive sizes with commas", hint="--input 1,1,64,64,64")
    return tuple(int(size) for size in sizes)


def parse_budget(texts: Sequence[str]) -> Budget:
    """A budget, in fractions or percent.

    Example:
        >>> parse_budget(["macs=5%", "params=0.1"])
        Budget(macs=0.05, params=0.1, activations=None, sparsity=None)
    """
    limits: dict[str, float] = {}
    known = [entry.name for entry in fields(Budget)]
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError("--budget", got=repr(text), expected="name=fraction", hint=nearest(name, known))
        if name in limits:
            raise InputError("--budget", got=f"{name} twice", expected="every limit once")
        try:
            limits[name] = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError as error:
            raise InputError(
                "--budget", got=repr(text), expected="a number", hint=f"{name}=0.05 or {name}=5%"
            ) from error
    return Budget(**limits)


def parse_arguments(texts: Sequence[str] | None) -> dict[str, Any]:
    """Arguments of a network: values as JSON or Python writes them, else texts.

    Example:
        >>> parse_arguments(["width=16", "widths=[8, 16]", "bias=false", "norm=None", "act=relu"])
        {'width': 16, 'widths': [8, 16], 'bias': False, 'norm': None, 'act': 'relu'}
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError("--set", got=repr(text), expected="a name and a value", hint="--set width=16")
        if name in found:
            raise InputError("--set", got=f"{name} twice", expected="every argument once")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
