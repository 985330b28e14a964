"""Packages that ranp needs for some of what it does, and imports only there."""

import importlib
from typing import Any

from ranp.errors import RanpError


def optional_import(module: str, where: str, *, extra: str = "train") -> Any:
    """Import a module of an optional package.

    Args:
        module: Its full name.
        where: What needs it, for the message.
        extra: The extra of ranp that brings it.

    Raises:
        RanpError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RanpError(
            where, got=f"no package {package} ({error})", expected=package, hint=f"run: pip install 'ranp[{extra}]'"
        ) from error
