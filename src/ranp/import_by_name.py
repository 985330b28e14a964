"""What users name in words: a network, a function of their own, a device."""

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
    """Build the network of that name with freshly drawn weights.

    Args:
        name: A built-in network, `package.module:factory` or `path/to/file.py:factory`.
        arguments: What to call it with.
        seed: Of the weights; the global random state stays as it is.
        where: Who names it, for messages.
        remedy: How to give other arguments, for messages.

    Raises:
        InputError: An unknown name, a factory that fails or wants other arguments, or one that returns no module.

    Example:
        >>> build_network("unet3d", {"out_channels": 3}, seed=0).head
        Conv3d(64, 3, kernel_size=(1, 1, 1), stride=(1, 1, 1))
    """
    place = f"{where} {name}"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        make = find(name, place) if ":" in name else built_in(name, where).build
        model = call(make, arguments or {}, place, remedy)
    if not isinstance(model, nn.Module):
        raise InputError(place, got=type(model).__name__, expected="a torch.nn.Module")
    return model


def built_in(name: str, where: str) -> BuiltIn:
    """The built-in network of that name.

    Raises:
        InputError: There is none; the nearest is suggested.
    """
    if name not in BUILT_IN:
        hint = f"{nearest(name, BUILT_IN)}; for your own network give package.module:factory or file.py:factory"
        raise InputError(where, got=repr(name), expected="a network", hint=hint)
    return BUILT_IN[name]


def find(name: str, where: str) -> Any:
    """What `package.module:name` or `path/to/file.py:name` stands for.

    The working directory, or the file's folder, is searched first from then on, as Python does for a script of its own.

    Args:
        name: The two parts with a colon between them.
        where: Who names it, for messages.

    Raises:
        InputError: There is no such thing, or importing it fails.

    Example:
        >>> find("fractions:Fraction", "number")(3, 4)
        Fraction(3, 4)
    """
    path, _, attribute = name.rpartition(":")
    with users_code(where, "a module that can be imported", "name it as package.module:name or path/to/file.py:name"):
        module = _from_file(Path(path), where) if path.endswith(".py") else _from_package(path)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        hint = nearest(attribute, known) if known else ""
        raise InputError(where, got=f"nothing named {attribute!r}", expected=f"a name in {path}", hint=hint) from error


def call(function: Callable[..., Any], arguments: Mapping[str, Any], where: str, remedy: str = "") -> Any:
    """Call a function of the user's with keyword arguments.

    Args:
        function: The function, or class.
        arguments: Keyword arguments.
        where: Who names it, for messages.
        remedy: How to give other arguments, for messages.

    Raises:
        InputError: It takes other arguments, or fails: then its own error is told, with file and line.

    Example:
        >>> call(lambda width: width + 1, {"widht": 3}, "model f", "give arguments as --set width=1")
        Traceback (most recent call last):
        ranp.errors.InputError: model f: got arguments widht=3 (missing a required argument: 'width'); expected \
arguments (width); give arguments as --set width=1
    """
    if not callable(function):
        raise InputError(where, got=type(function).__name__, expected="a function or class")
    with users_code(where, "no error"):
        signature = _signature(function)
        if signature is not None:
            try:
                signature.bind(**arguments)
            except TypeError as error:
                given = ", ".join(f"{name}={value!r}" for name, value in arguments.items()) or "none"
                wanted = textwrap.shorten(str(signature.replace(return_annotation=signature.empty)), 300)
                got = f"arguments {given} ({error})" if arguments else f"no arguments ({error})"
                raise InputError(where, got=got, expected=f"arguments {wanted}", hint=remedy) from error
        return function(**arguments)


def find_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        InputError: There is none.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "--device", got=repr(name), expected="'cpu', or 'cuda' where torch finds a CUDA device"
        ) from error
    return device


@contextmanager
def users_code(where: str, expected: str, hint: str = "") -> Iterator[None]:
    """Turn whatever code of the user's raises into one error, which names the user's own with file and line.

    Raises:
        InputError: The code inside has raised something that is no RanpError, or has ended the program.
    """
    try:
        yield
    except RanpError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(where, got=_told(error), expected=expected, hint=hint) from error


def _told(error: BaseException) -> str:
    """An error in a line, with the last place that it came through, in the user's own code if it did."""
    text = textwrap.shorten(f"{type(error).__name__}: {error}".strip(": "), 300)
    files = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    installed = [place for place in files if _PACKAGES & {*Path(place[0]).parts}]
    ours = (str(Path(__file__).parent), sysconfig.get_path("stdlib"), "<frozen")
    own = [place for place in files if place not in installed and not place[0].startswith(ours)]
    if not own and not installed:
        return text
    file, line = (own or installed)[-1]
    here = Path(file).is_relative_to(Path.cwd())
    return f"{text} ({os.path.relpath(file) if here else file}, line {line})"


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # Some functions written in C tell nothing of themselves.
        return None


def _from_package(path: str) -> ModuleType:
    _search_first(Path.cwd())
    return importlib.import_module(path)


def _from_file(path: Path, where: str) -> ModuleType:
    """Run a file as a module; a file that is named twice runs once."""
    path = path.resolve()
    if not path.is_file():
        raise InputError(where, got=f"no file {path.name} in {path.parent}", expected="a file of Python")
    # Whatever already has the file's name, such as a module of Python's own, must stay what it is.
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
