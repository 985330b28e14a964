"""From YAML to a recipe; whatever is wrong with it is one error that names the file and the field."""

import copy
import inspect
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from ranp.errors import InputError, RanpError, nearest
from ranp.experiments.recipes import upgrade_recipe
from ranp.experiments.recipes._recipe import DataSets, Recipe

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def read_recipe(
    source: str | os.PathLike[str] | Mapping[str, Any],
    changes: Sequence[str] = (),
    seed: int | None = None,
    *,
    data_sets: DataSets | None = None,
    place: str = "",
) -> Recipe:
    """Read a recipe.

    Args:
        source: A YAML file, or its content as plain values.
        changes: Such as `training.steps=10`; values are YAML.
        seed: Instead of the recipe's.
        data_sets: Data sets of your own, by the name that the recipe gives them.
        place: Where the content comes from, for messages; the file, if it is one.

    Raises:
        InputError: The file cannot be read, or a field is missing, unknown or of the wrong kind.

    Example:
        >>> from ranp.experiments.recipes import recipe_file
        >>> recipe = read_recipe(recipe_file("small-decathlon"), ["training.steps=10"], seed=3)
        >>> recipe.seed, recipe.training.steps, recipe.pruning.method
        (3, 10, 'ranp-f')
    """
    if isinstance(source, Mapping):
        content, place = copy.deepcopy(dict(source)), place or "recipe"
    else:
        content, place = _read_yaml(Path(source)), place or str(source)
    for change in changes:
        _set(content, change)
    if seed is not None:
        content["seed"] = seed
    upgraded = upgrade_recipe(content)
    if upgraded != content:
        renamed = "pruning.lam is now called resource_weight, and the setting planes of decathlon slices"
        warnings.warn(f"{place}: a field has its name of version 0.1; {renamed}", DeprecationWarning, stacklevel=2)
    return _validated(upgraded, place, data_sets or {})


def _validated(content: Mapping[str, Any], place: str, data_sets: DataSets) -> Recipe:
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _refusal(error, place, (), Recipe) from error
    recipe._data_sets = data_sets
    for prefix, changes in (("data", {}), ("pruning.data", recipe.pruning.data)):
        try:
            recipe.data_set(changes)
        except ValidationError as error:
            kind = recipe.data_set_type(str({**recipe.data, **changes}["name"]))
            raise _refusal(error, place, (prefix,), kind) from error
        except InputError as error:
            raise InputError(f"{place}: {prefix}.name", _text(error)) from error
    return recipe


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read ({error})", expected="a recipe: a YAML file") from error
    content = _parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise InputError(str(path), got=type(content).__name__, expected="a recipe: YAML with named fields")
    return content


def _parse_yaml(text: str, place: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(place, f"is not valid YAML ({' '.join(str(error).split())})") from error


def _set(content: dict[str, Any], change: str) -> None:
    """Set the field that a dotted name leads to; whether such a field exists is checked later."""
    name, equals, text = change.partition("=")
    *parents, last = name.strip().split(".")
    if not equals or not last:
        raise InputError("--set", got=repr(change), expected="a field and its value", hint="--set training.steps=10")
    fields = content
    for parent in parents:
        inner = fields.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError("--set", f"{parent} has no fields", got=repr(change))
        fields = inner
    fields[last] = _parse_yaml(text, f"--set {name}")


def _refusal(error: ValidationError, place: str, prefix: tuple[str, ...], kind: Any) -> InputError:
    """The first thing that is wrong, in the form of our own errors."""
    # A misspelt field is also missing under its right name: the misspelling is what helps.
    found = min(error.errors(), key=lambda entry: entry["type"] not in _UNKNOWN)
    path = _path(found)
    where = f"{place}: {'.'.join((*prefix, *path))}" if path or prefix else place
    if found["type"] in _UNKNOWN:
        return InputError(where, "unknown field", hint=nearest(path[-1], _field_names(kind, path[:-1])))
    if found["type"] == "missing":
        return InputError(where, "the field is missing")
    if isinstance(cause := found.get("ctx", {}).get("error"), RanpError):
        return InputError(where, _text(cause))
    if found["type"] == "value_error":
        return InputError(where, expected=_expected(found))
    # For a field that accepts several types there is one error for each of them.
    expected = [_expected(entry) for entry in error.errors() if _path(entry) == path]
    given, hint = found["input"], ""
    if found["type"] == "literal_error" and isinstance(given, str):
        hint = nearest(given, re.findall("'(.*?)'", found["ctx"]["expected"]))
    return InputError(where, got=repr(given), expected=" or ".join(expected), hint=hint)


def _text(error: RanpError) -> str:
    """What an error says, without its place."""
    return str(error).removeprefix(f"{error.where}: ")


def _path(entry: Mapping[str, Any]) -> list[str]:
    """Names of the fields that lead to an error, without those that pydantic gives to the types of one field."""
    names = [str(part) for part in entry["loc"]]
    return [name for name in names if name != "constrained-int" and not name.startswith("literal[")]


def _expected(entry: Mapping[str, Any]) -> str:
    message = str(entry["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return message.partition(", unable")[0].partition(" or instance of ")[0]


def _field_names(kind: Any, path: Iterable[str]) -> list[str]:
    """Names of the fields of the part of a recipe that a path leads to."""
    for name in path:
        annotation = kind.model_fields[name].annotation if hasattr(kind, "model_fields") else None
        candidates = (annotation, *get_args(annotation))
        kind = next((c for c in candidates if is_dataclass(c) or hasattr(c, "model_fields")), None)
    return list(inspect.signature(kind).parameters) if kind is not None else []
