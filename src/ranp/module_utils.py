"""What a model is made of, copying it, and leaving a caller's model as it was."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ranp.errors import TraceError

_HOLDERS = {OrderedDict, dict, list, set}
_ATOMS = {bool, int, float, str, type(None)}
_COPYING = ("__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__")
_TABLES = ("_parameters", "_buffers", "_modules")


def every_module(model: nn.Module) -> dict[str, nn.Module]:
    """All modules, under each of their paths, as `named_modules` orders them: parents before children.

    Written down at once: the generators that torch nests for every level take most of the time of a deep model.
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


def every_tensor(model: nn.Module) -> dict[str, Tensor]:
    """All parameters, then all buffers, under each of their names."""
    modules = every_module(model)
    return {
        f"{path}.{name}" if path else name: tensor
        for table in ("_parameters", "_buffers")
        for path, module in modules.items()
        for name, tensor in vars(module)[table].items()
        if tensor is not None
    }


def copied(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """A deep copy in which each parameter and buffer is what `convert` makes of it.

    No value is copied on the way, and what the model holds under several names the copy holds under the same ones.

    Raises:
        TraceError: The model holds something that cannot be copied.
    """
    modules = {id(module): module for module in every_module(model).values()}
    memo: dict[int, Any] = {}
    for tensor in every_tensor(model).values():
        if id(tensor) not in memo:
            memo[id(tensor)] = _like(tensor, convert(tensor).detach())
    kinds = {kind for kind in {type(module) for module in modules.values()} if _is_plain(kind)}
    plain = [module for module in modules.values() if type(module) in kinds]
    memo.update((id(module), type(module).__new__(type(module))) for module in plain)
    try:
        for module in plain:
            attributes = vars(memo[id(module)])
            for name, value in vars(module).items():
                attributes[name] = value if type(value) in _ATOMS else _copy(value, memo)
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise TraceError(
            "model",
            got=f"something that cannot be copied ({type(error).__name__}: {error})",
            expected="a model that copy.deepcopy takes",
        ) from error


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    return nn.Parameter(value, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether a module is its attributes and nothing else, so that copying those copies it."""
    usual = all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in _COPYING)
    # Layers of torch have a `__setstate__` for attributes that are missing in files of old versions.
    known = kind.__setstate__.__module__.startswith("torch.nn.modules.")
    return usual and known and not any(vars(base).get("__slots__") for base in kind.__mro__)


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    """What `copy.deepcopy` makes of it, faster for what modules hold by the dozen."""
    kind = type(value)
    if kind is tuple and _ATOMS.issuperset(map(type, value)):
        return value
    if id(value) not in memo:
        if kind in _HOLDERS and not value:
            memo[id(value)] = kind()
        elif kind is dict and all(id(item) in memo or item is None for item in value.values()):
            memo[id(value)] = {name: memo.get(id(item)) for name, item in value.items()}
        elif isinstance(value, Tensor) and not value.is_leaf:
            # Computed, by weight norm say, and refused by deepcopy.
            memo[id(value)] = value.detach().clone()
        else:
            return copy.deepcopy(value, memo)
    return memo[id(value)]


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
    modules = {id(module): module for module in every_module(model).values()}.values()
    saved = [
        (module, dict(module.__dict__), {name: dict(module.__dict__[name]) for name in _TABLES}) for module in modules
    ]
    held = {id(buffer): buffer for module in modules for buffer in module._buffers.values() if buffer is not None}
    buffers = [(buffer, buffer.detach().clone()) for buffer in held.values()]
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
