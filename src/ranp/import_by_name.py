"""Objects that users give by name: a network, a function of their own, a device."""

import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ranp.errors import InputError, RanpError, nearest
from ranp.models import BUILT_IN, BuiltIn

_PACKAGES = {"site-packages", "dist-packages"}


def build_network(
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    seed: int,
    where: str = "model",
    remedy: str = "give arguments as --set in_channels=1",
) -> nn.Module:
    """Build a network with random weights: a built-in one, `package.module:factory` or `path/to/file.py:factory`.

    The global random state does not change. Errors show `where` and, as `remedy`, how to give other arguments.

    Raises:
        InputError: The name is unknown, the factory fails or takes other arguments, or it does not return a module.

    Example:
        >>> build_network("unet3d", {"out_channels": 3}, seed=0).head
        Conv3d(64, 3, kernel_size=(1, 1, 1), stride=(1, 1, 1))
    """
    place = f"{where} {name}"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        factory = find(name, place) if ":" in name else built_in(name, where).build
        model = call(factory, arguments or {}, place, remedy)
    if not isinstance(model, nn.Module):
        raise InputError(place, f"returned an object of type {type(model).__name__}, not a torch.nn.Module")
    return model


def built_in(name: str, where: str) -> BuiltIn:
    """The built-in network of that name; an `InputError` suggests the nearest one."""
    if name not in BUILT_IN:
        hint = f"{nearest(name, BUILT_IN)}; for your own network give package.module:factory or file.py:factory"
        raise InputError(where, f"no built-in network is named {name!r}", hint=hint)
    return BUILT_IN[name]


def find(name: str, where: str) -> Any:
    """Import the object that `package.module:name` or `path/to/file.py:name` refers to. Errors show `where`.

    From then on, the working directory or the folder of the file comes first in `sys.path`, as for a Python script.

    Raises:
        InputError: There is no such object, or the import fails.
    """
    path, _, attribute = name.rpartition(":")
    with users_code(where, "cannot be imported", "names have the form package.module:name or path/to/file.py:name"):
        if path.endswith(".py"):
            module = _from_file(Path(path), where)
        else:
            _search_first(Path.cwd())
            module = importlib.import_module(path)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        hint = nearest(attribute, known) if known else ""
        raise InputError(where, f"{path} has nothing named {attribute!r}", hint=hint) from error


def call(function: Callable[..., Any], arguments: Mapping[str, Any], where: str, remedy: str = "") -> Any:
    """Call a function or class of the user, which was given at the place `where`, with keyword arguments.

    Raises:
        InputError: The function takes other arguments, or fails; then the message has its error, with file and line.
    """
    if not callable(function):
        raise InputError(where, f"is an object of type {type(function).__name__}, not a function or class")
    with users_code(where, "failed"):
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # Some functions written in C have no signature.
            signature = None
        if signature is not None:
            try:
                signature.bind(**arguments)
            except TypeError as error:
                given = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "no arguments"
                wanted = textwrap.shorten(str(signature.replace(return_annotation=signature.empty)), 300)
                problem = f"cannot be called with {given} ({error})"
                raise InputError(where, problem, expected=f"arguments {wanted}", hint=remedy) from error
        return function(**arguments)


def find_device(name: str) -> torch.device:
    """The device of that name; an `InputError` if there is none."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = "use cpu, or cuda if torch finds a CUDA device"
        raise InputError("--device", f"there is no device {name!r}", hint=hint) from error
    return device


@contextmanager
def users_code(where: str, problem: str, hint: str = "") -> Iterator[None]:
    """Turn every exception of the user's code into an `InputError` with its message, file and line.

    `where` is the place where the code was given, `problem` what went wrong, such as "cannot be imported". A RanpError
    is raised as it is; an attempt to end the program is an exception like others.
    """
    try:
        yield
    except RanpError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(where, f"{problem}: {_describe(error)}", hint=hint) from error


def _describe(error: BaseException) -> str:
    """Type, message and place of an error in one line: the last place in the user's code, or in a package."""
    text = textwrap.shorten(f"{type(error).__name__}: {error}".strip(": "), 300)
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    installed = [place for place in places if _PACKAGES & {*Path(place[0]).parts}]
    ours = (str(Path(__file__).parent), sysconfig.get_path("stdlib"), "<frozen")
    own = [place for place in places if place not in installed and not place[0].startswith(ours)]
    if not own and not installed:
        return text
    file, line = (own or installed)[-1]
    is_here = Path(file).is_relative_to(Path.cwd())
    return f"{text} ({os.path.relpath(file) if is_here else file}, line {line})"


def _from_file(path: Path, where: str) -> ModuleType:
    """Import a file as a module; a file that is imported twice runs once."""
    path = path.resolve()
    if not path.is_file():
        raise InputError(where, f"there is no file {path.name} in {path.parent}")
    # A module that already has the name of the file, such as one of the standard library, must not be replaced.
    for name in (path.stem, f"_{path.stem}_file"):
        known = sys.modules.get(name)
        if known is None:
            break
        if getattr(known, "__file__", None) == str(path):
            return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _search_first(path.parent)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _search_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
