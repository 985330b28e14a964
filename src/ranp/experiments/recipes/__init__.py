"""Recipes: typed descriptions of an experiment, read from YAML; needs the extra `train`."""

import copy
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranp.optional import optional_import

if TYPE_CHECKING:
    from ranp.experiments.recipes._read import read_recipe
    from ranp.experiments.recipes._recipe import NetworkFields, PruningFields, Recipe, TrainingFields

__all__ = ["NetworkFields", "PruningFields", "Recipe", "TrainingFields", "read_recipe", "recipe_file", "upgrade_recipe"]

# In the installed package, or in the source tree.
_FOLDERS = (Path(__file__).parent / "files", Path(__file__).parents[4] / "recipes")


def recipe_file(name: str) -> Path:
    """The file of a recipe that comes with ranp.

    Example:
        >>> recipe_file("hippocampus").name
        'hippocampus.yaml'
    """
    paths = [folder / f"{name}.yaml" for folder in _FOLDERS]
    return next((path for path in paths if path.is_file()), paths[0])


def upgrade_recipe(content: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a recipe in which the names of fields of version 0.1 are replaced by today's.

    Example:
        >>> upgrade_recipe({"data": {"name": "decathlon", "planes": True}, "pruning": {"lam": 15}})
        {'data': {'name': 'decathlon', 'slices': True}, 'pruning': {'resource_weight': 15}}
    """
    upgraded = copy.deepcopy(dict(content))
    data, pruning = upgraded.get("data"), upgraded.get("pruning")
    _rename(pruning, "lam", "resource_weight")
    if isinstance(data, dict) and data.get("name") == "decathlon":
        _rename(data, "planes", "slices")
        _rename(pruning.get("data") if isinstance(pruning, dict) else None, "planes", "slices")
    return upgraded


def _rename(fields: Any, old: str, new: str) -> None:
    if isinstance(fields, dict) and old in fields:
        fields[new] = fields.pop(old)


def __getattr__(name: str) -> Any:
    """Import pydantic and yaml only when a recipe is read, and name the extra if they are missing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in ("pydantic", "yaml"):
        optional_import(package, "recipe")
    module = "_read" if name == "read_recipe" else "_recipe"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
