"""From a YAML file to a recipe; whatever is wrong with it is one error that names the file and the field."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ranp.errors import InputError, nearest
from ranp.experiments.data import data_set
from ranp.experiments.recipes._fields import Recipe

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def read_recipe(path: str | os.PathLike[str], changes: Sequence[str] = (), seed: int | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: A YAML file.
        changes: Such as `training.steps=10`; values are YAML.
        seed: Instead of the recipe's.

    Raises:
        InputError: The file cannot be read, or a field is missing, unknown or of the wrong kind.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), got=str(error), expected="a recipe: a file of YAML") from error
    content = _load(text, str(path))
    if not isinstance(content, dict):
        raise InputError(str(path), got=type(content).__name__, expected="a recipe: YAML with named fields")
    for change in changes:
        _set(content, change)
    if seed is not None:
        content["seed"] = seed
    return parse_recipe(content, str(path))


def parse_recipe(content: Mapping[str, Any], place: str) -> Recipe:
    """A recipe of plain values.

    Args:
        content: Fields by name.
        place: Where they come from, for messages.

    Raises:
        InputError: A field is missing, unknown or of the wrong kind.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _refusal(error, place, (), Recipe) from error
    for prefix, changes in (("data", {}), ("pruning.data", recipe.pruning.data)):
        try:
            recipe.data_set(changes)
        except ValidationError as error:
            raise _refusal(error, place, (prefix,), data_set(str({**recipe.data, **changes}["name"]))) from error
        except InputError as error:
            raise InputError(f"{place}: {prefix}.name", got="an unknown data set", expected=str(error)) from error
    return recipe


def _load(text: str, place: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(place, got=f"no YAML ({reason})", expected="a recipe: a file of YAML") from error


def _set(content: dict[str, Any], change: str) -> None:
    """Set the field that a dotted name leads to; whether it may be there is found later."""
    name, equals, text = change.partition("=")
    *parents, last = name.strip().split(".")
    if not equals or not last:
        raise InputError("--set", got=repr(change), expected="a field and its value", hint="--set training.steps=10")
    place = content
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError("--set", got=repr(change), expected=f"a field; {parent} has no fields of its own")
        place = inner
    place[last] = _load(text, f"--set {name}")


def _refusal(error: ValidationError, place: str, prefix: tuple[str, ...], kind: Any) -> InputError:
    """The first thing that is wrong, in the words of our own errors."""
    # A misspelt field is missing under its right name, too: the misspelling is what helps.
    found = min(error.errors(), key=lambda entry: entry["type"] not in _UNKNOWN)
    path = _path(found)
    where = f"{place}: {'.'.join((*prefix, *path))}" if path or prefix else place
    if found["type"] in _UNKNOWN:
        hint = nearest(path[-1], _known(kind, path[:-1]))
        return InputError(where, got="an unknown field", expected="another one", hint=hint)
    if found["type"] == "missing":
        return InputError(where, got="nothing", expected="a value")
    # Of a field that may be of several kinds there is an error for each of them.
    wanted = [_wanted(entry) for entry in error.errors() if _path(entry) == path]
    given = found["input"]
    got = "its fields" if isinstance(given, Mapping) else repr(given)
    hint = nearest(given, _choices(found)) if found["type"] == "literal_error" and isinstance(given, str) else ""
    return InputError(where, got=got, expected=" or ".join(wanted), hint=hint)


def _path(entry: Mapping[str, Any]) -> list[str]:
    """Names of the fields that lead to an error, without those that pydantic gives to the kinds of one field."""
    names = [str(part) for part in entry["loc"]]
    return [name for name in names if name != "constrained-int" and not name.startswith("literal[")]


def _wanted(entry: Mapping[str, Any]) -> str:
    message = str(entry["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return message.partition(", unable")[0]


def _choices(found: Mapping[str, Any]) -> list[str]:
    return [word.strip("' ") for word in found["ctx"]["expected"].replace(" or ", ",").split(",")]


def _known(kind: Any, path: Iterable[str]) -> list[str]:
    """Names of the fields of the part of a recipe that a path leads to."""
    for name in path:
        options = (kind.model_fields[name].annotation,) if hasattr(kind, "model_fields") else ()
        candidates = [inner for option in options for inner in (option, *get_args(option))]
        kind = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    if is_dataclass(kind):
        return [entry.name for entry in dataclass_fields(kind)]
    return list(getattr(kind, "model_fields", {}))
