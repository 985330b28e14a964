"""Optional packages, which are imported only where they are needed."""

import importlib
from typing import Any

from ranp.errors import RanpError


def optional_import(module: str, where: str, *, extra: str = "train") -> Any:
    """Import a module; a `RanpError` of the part `where` of ranp names the extra that installs a missing package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        problem = f"the package {package} is not installed ({error})"
        raise RanpError(where, problem, hint=f"run: pip install 'ranp[{extra}]'") from error
