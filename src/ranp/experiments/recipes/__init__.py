"""Recipes: typed descriptions of an experiment, read from YAML; needs the extra `train`."""

import importlib
from typing import TYPE_CHECKING, Any

from ranp.deprecation import renamed_names
from ranp.experiments.recipes._files import recipe_file, upgrade_recipe
from ranp.optional import optional_import

if TYPE_CHECKING:
    from ranp.experiments.recipes._read import read_recipe
    from ranp.experiments.recipes._recipe import NetworkFields, PruningFields, Recipe, TrainingFields

__all__ = ["NetworkFields", "PruningFields", "Recipe", "TrainingFields", "read_recipe", "recipe_file", "upgrade_recipe"]

_renamed = renamed_names(
    __name__,
    {"Limits": "ranp.Budget", "Network": "NetworkFields", "Pruning": "PruningFields", "Training": "TrainingFields"},
)


def __getattr__(name: str) -> Any:
    """Import pydantic and yaml only when a recipe is read, and name the extra if they are missing."""
    if name not in __all__:
        return _renamed(name)
    for package in ("pydantic", "yaml"):
        optional_import(package, "recipe")
    module = "_read" if name == "read_recipe" else "_recipe"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
