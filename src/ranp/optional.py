"""Optional packages, which are imported only where they are needed."""

import importlib
from typing import Any

from ranp.errors import RanpError


def optional_import(module: str, where: str, *, extra: str = "train") -> Any:
    """Import a module of an optional package.

    Args:
        module: Full name of the module.
        where: The part of ranp that needs it, for the error.
        extra: The extra of ranp that installs it.

    Raises:
        RanpError: The package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        problem = f"the package {package} is not installed ({error})"
        raise RanpError(where, problem, hint=f"run: pip install 'ranp[{extra}]'") from error
