"""Files of recipes: where those that come with ranp are, and the names that fields had in version 0.1."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
