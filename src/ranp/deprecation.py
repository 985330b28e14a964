"""Names of ranp 0.1 that have changed: they work for one more release, with a `DeprecationWarning`.

Everything here, and every use of it, goes with version 0.3.
"""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MODULES = {
    "ranp.cost": "ranp.costs",
    "ranp.data": "ranp.experiments.data",
    "ranp.demo": "ranp.experiments.demo",
    "ranp.naming": "ranp.import_by_name",
    "ranp.page": "ranp.explorer",
    "ranp.plots": "ranp.experiments.plots",
    "ranp.recipes": "ranp.experiments.recipes",
    "ranp.reproduce": "ranp.experiments.reproduce.resources ranp.experiments.reproduce.networks "
    "ranp.experiments.reproduce.counting",
    "ranp.runs": "ranp.experiments.runs",
    "ranp.studies": "ranp.experiments.studies ranp.experiments.studies.running ranp.experiments.studies.results "
    "ranp.experiments.studies.measuring ranp.experiments.studies.page",
    "ranp.survey": "ranp.explorer",
    "ranp.training": "ranp.costs.measure ranp.experiments.data ranp.experiments.losses",
}
"""Old module -> new module, or several in which to look."""

NAMES = {
    "ranp.data": {"Opened": "ranp.experiments.data.DataBundle", "Progress": "ranp.progress.Progress"},
    "ranp.page": {"write_page": "ranp.explorer.write_report"},
    "ranp.plots": {
        "FAINT": "ranp.experiments.plots.LIGHT_GRAY",
        "FULL_COLOUR": "ranp.experiments.plots.FULL_COLOR",
        "PRUNED_COLOUR": "ranp.experiments.plots.PRUNED_COLOR",
        "tidy": "ranp.experiments.plots.style_panel",
    },
    "ranp.recipes": {
        "Limits": "ranp.Budget",
        **{name: f"ranp.experiments.recipes.{name}Fields" for name in ("Network", "Pruning", "Training")},
    },
    "ranp.reproduce": {
        "Row": "ranp.experiments.reproduce.resources.ResourceRow",
        "tables": "ranp.experiments.reproduce.resources.resource_tables",
    },
    "ranp.studies": {"Setting": "ranp.experiments.studies.RecipeChoice"},
    "ranp.survey": {"timed": "ranp.explorer.with_forward_seconds"},
}
"""For old modules, the names in them that have changed, too."""


def warn(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Say that a name has changed."""
    warnings.warn(f"{old} is now {new}; the old name will be removed in ranp 0.3", DeprecationWarning, stacklevel)


def renamed_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a module (given by `__name__`) that finds functions and classes by their old names.

    A new name with dots is looked up in another module.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].rpartition(".")
        warn(f"{module}.{name}", f"{home or module}.{new}")
        return getattr(import_module(home or module), new)

    return find


class RenamedAttribute:
    """An attribute of a class that has another name now: `frozen = RenamedAttribute("unprunable")`."""

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        warn(f"{owner.__name__}.{self.old}", f"{owner.__name__}.{self.new}")
        return getattr(instance, self.new)


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function accept keyword arguments by their old names, given as `old="new"`.

    The function raises a TypeError where an argument is given by both of its names.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def accept_old_names(*args: P.args, **kwargs: P.kwargs) -> T:
            for old in renamed.keys() & kwargs.keys():
                call, new = f"{function.__name__}({old}=...)", renamed[old]
                if new in kwargs:
                    raise TypeError(f"{call}: {old} is the old name of {new}; give only {new}")
                warn(call, f"{new}=")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accept_old_names

    return decorate


class _OldModules(MetaPathFinder, Loader):
    """Finds modules by their old names, where there is no module of that name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        homes = MODULES[module.__name__].split()
        warn(module.__name__, " or ".join(homes))  # The import system's own frames do not count.
        renamed = renamed_names(module.__name__, NAMES.get(module.__name__, {}))

        def find(name: str) -> Any:
            # What looks through all modules, as `inspect` does for `__file__`, must not import anything.
            for home in homes if not name.startswith("__") else ():
                if hasattr(import_module(home), name):
                    return getattr(import_module(home), name)
            return renamed(name)

        module.__getattr__ = find  # type: ignore[method-assign]


def find_old_modules() -> None:
    """Let modules be imported by their old names; calling this again changes nothing."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())
