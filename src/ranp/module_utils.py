"""Modules as a whole: list what they hold, copy them, call them on nested inputs, and restore their state."""

import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ranp.arguments import Must, describe
from ranp.errors import InputError, TraceError

INPUTS = "a tensor, a tuple (positional arguments) or a dict (keyword arguments)"

Inputs: TypeAlias = Annotated[Any, Must(lambda value: isinstance(value, (Tensor, tuple, list, Mapping)), INPUTS)]
"""Inputs of a model."""

ModelWithValues: TypeAlias = Annotated[
    nn.Module,
    Must(
        lambda model: not any(tensor.is_meta or is_lazy(tensor) for tensor in all_tensors(model).values()),
        "a model whose weights have values",
        "initialize what was built on the meta device (to_empty), and run lazy modules on one batch",
    ),
]
"""A model that can be computed with."""

ModelWithShapes: TypeAlias = Annotated[
    nn.Module,
    Must(
        lambda model: not any(map(is_lazy, all_tensors(model).values())),
        "a model whose weights have shapes",
        "run lazy modules on one batch",
    ),
]
"""A model that may be on the meta device."""

_CONTAINERS = {OrderedDict, dict, list, set}
_ATOMS = {bool, int, float, str, type(None)}
_LEAVES = _ATOMS | {torch.dtype, torch.device, torch.layout, torch.memory_format}
_COPYING = ("__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class DispatchMode(TorchDispatchMode):
    """A mode of torch that sees every operator, in this thread alone."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled meanwhile, so torch need not import its compiler to prevent that, which takes seconds."""
        return False


def all_modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules, under each of their paths, in the order of `named_modules`: parents before children.

    A dict is built at once because the generators that torch nests per level take most of the time on deep models.
    """
    found: dict[str, nn.Module] = {}

    def visit(path: str, module: nn.Module) -> None:
        found[path] = module
        prefix = path + "." if path else ""
        for name, child in module._modules.items():
            if child is not None:
                visit(prefix + name, child)

    visit("", model)
    return found


def all_tensors(model: nn.Module, *, remove_duplicate: bool = False, attributes: bool = False) -> dict[str, Tensor]:
    """All parameters, then all buffers.

    Args:
        model: The model.
        remove_duplicate: Return a tensor that has several names once, under the first; otherwise under each of them.
        attributes: Also return tensors that modules hold as ordinary attributes, which are in no state dict.
    """
    modules, seen = all_modules(model), set[int]()
    found: dict[str, Tensor] = {}
    for table in ("_parameters", "_buffers"):
        for path, module in modules.items():
            for name, tensor in vars(module)[table].items():
                if tensor is not None and not (remove_duplicate and id(tensor) in seen):
                    seen.add(id(tensor))
                    found[f"{path}.{name}" if path else name] = tensor
    if attributes:
        found.update(attribute_tensors(model))
    return found


def attribute_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that modules hold as ordinary attributes, under each of their names."""
    for path, module in all_modules(model).items():
        for name, value in vars(module).items():
            if type(value) not in _LEAVES and type(value) not in _CONTAINERS and isinstance(value, Tensor):
                yield (f"{path}.{name}" if path else name), value


def copy_model(
    model: nn.Module, convert: Callable[[Tensor], Tensor], *, hooks: Literal["own", "all"] = "own"
) -> nn.Module:
    """A deep copy in which each parameter and buffer is the result of `convert`.

    The values of the original are never copied; what the model shares under several names, the copy shares likewise.

    Args:
        model: The model.
        convert: Makes the tensors of the copy.
        hooks: `own` leaves out hooks that are functions: these are not copied with the model, so on the copy they would
            still act on what the caller's model acts on. Methods and other objects are copied and stay.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    modules = {id(module): module for module in all_modules(model).values()}
    memo: dict[int, Any] = {}
    for tensor in all_tensors(model, remove_duplicate=True).values():
        value, wrap = convert(tensor).detach(), isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(value, requires_grad=tensor.requires_grad) if wrap else value
    kinds = {kind for kind in {type(module) for module in modules.values()} if _is_plain(kind)}
    plain = [module for module in modules.values() if type(module) in kinds]
    memo.update((id(module), type(module).__new__(type(module))) for module in plain)
    try:
        for module in plain:
            attributes = vars(memo[id(module)])
            for name, value in vars(module).items():
                attributes[name] = value if type(value) in _ATOMS else _copy(value, memo)
        copied: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        problem = f"holds something that cannot be copied ({type(error).__name__}: {error})"
        raise TraceError("model", problem) from error
    if hooks == "own":
        for key, module in modules.items():
            _drop_shared_hooks(vars(module), vars(memo[key]))
    return copied


def _drop_shared_hooks(original: Mapping[str, Any], copied: Mapping[str, Any]) -> None:
    """Remove those hooks from the copy of a module that are the original's; both are given by their attributes."""
    for name in _HOOKS:
        for key, hook in original.get(name, {}).items():
            if _function(copied[name].get(key)) is _function(hook):
                del copied[name][key]


def _function(hook: Any) -> Any:
    return _function(hook.func) if isinstance(hook, partial) else hook


def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether a module consists of its attributes alone, so that copying those copies it."""
    usual = all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in _COPYING)
    # Layers of torch have a `__setstate__` for attributes that are missing in files of old versions.
    known = kind.__setstate__.__module__.startswith("torch.nn.modules.")
    return usual and known and not any(vars(base).get("__slots__") for base in kind.__mro__)


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    """The result of `copy.deepcopy`, faster for the values that modules usually hold."""
    kind = type(value)
    if kind is tuple and _ATOMS.issuperset(map(type, value)):
        return value
    if id(value) not in memo:
        if kind in _CONTAINERS and not value:
            memo[id(value)] = kind()
        elif kind is dict and all(id(item) in memo or item is None for item in value.values()):
            memo[id(value)] = {name: memo.get(id(item)) for name, item in value.items()}
        elif isinstance(value, Tensor) and not value.is_leaf:
            # Computed by weight norm, for example; deepcopy refuses it.
            memo[id(value)] = value.detach().clone()
        else:
            return copy.deepcopy(value, memo)
    return memo[id(value)]


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Run a model on inputs in one of the forms that `as_arguments` accepts."""
    args, kwargs = as_arguments(inputs)
    return model(*args, **kwargs)


def as_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Model inputs as positional and keyword arguments: a tensor, a tuple (positional) or a dict (keywords).

    Nested lists and dicts are copied, because a forward may overwrite entries of those that it receives.
    """
    inputs = tree_map(lambda leaf: leaf, inputs)
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise InputError("inputs", got=describe(inputs), expected=INPUTS)


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples, mappings and dataclasses."""
    found: list[Tensor] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[Tensor]) -> None:
    if type(value) in _LEAVES:
        return
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            if type(item) not in _LEAVES:  # Called for every argument of every operator of a trace.
                _collect(item, found)
    elif isinstance(value, Mapping):
        for item in value.values():
            _collect(item, found)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            _collect(getattr(value, entry.name), found)


@contextmanager
def preserve_rng(model: nn.Module) -> Iterator[None]:
    """Restore the random number generators of Python, numpy and torch (of the CPU and the model's devices) on exit."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python, state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(state)


def seed_rng() -> None:
    """Seed the random number generators of Python, numpy and torch, for repeatable runs within `preserve_rng`."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@contextmanager
def preserve_state(model: nn.Module, *, values: bool = True) -> Iterator[None]:
    """Undo all changes to a model on exit, except for values of its parameters.

    This covers assignments to attributes (training modes among them), parameters and buffers of any module, entries of
    the dicts, lists and sets that it holds (hooks among them), and the values of buffers.

    Args:
        model: The model.
        values: Whether buffers have values that need to be restored.
    """
    modules = {id(module): module for module in all_modules(model).values()}.values()
    saved = [(vars(module), dict(vars(module))) for module in modules]
    containers = [held for _, table in saved for held in table.values() if type(held) in _CONTAINERS]
    filled = [(held, held.copy()) for held in containers if held]  # most are empty
    empty = [held for held in containers if not held]
    held = {id(buffer): buffer for module in modules for buffer in module._buffers.values() if buffer is not None}
    buffers = [(buffer, buffer.detach().clone()) for buffer in held.values()] if values else []
    try:
        yield
    finally:
        for attributes, entries in saved:
            attributes.clear()
            attributes.update(entries)
        for held in empty:
            if held:
                held.clear()
        for held, entries in filled:
            held.clear()
            (held.extend if isinstance(held, list) else held.update)(entries)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
