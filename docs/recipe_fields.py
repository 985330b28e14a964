"""Writes `recipe-fields.md`, beside this file, from the descriptions of the fields: run it when they have changed."""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ranp.experiments.data import DATA_SETS
from ranp.experiments.recipes import Recipe

PAGE = Path(__file__).with_name("recipe-fields.md")
HEAD = """# Recipe fields

Written by `docs/recipe_fields.py`; change the descriptions in `src/ranp/recipes/_fields.py` and in the data sets.

What a [recipe](train.md#recipes) may hold. `--set training.steps=300` changes one
for one run.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_part(Recipe, "")]
    for name, kind in DATA_SETS.items():
        rows = [(field.name, _value(field.default), text) for field, text in _settings(kind)]
        parts.append(f"## data: {{name: {name}}}\n\n{inspect.getdoc(kind).splitlines()[0]}\n\n{_table(rows)}")
    return "\n".join(parts)


def _part(model: type[BaseModel], path: str) -> Iterator[str]:
    """A section for the fields of a model, and one for each model among them."""
    rows, inner = [], []
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _value(field.get_default())
        rows.append((name, default, field.description or ""))
        inner += [(found, f"{path}.{name}".lstrip(".")) for found in _models(field)]
    yield f"## {path or 'The recipe'}\n\n{model.__doc__}\n\n{_table(rows)}"
    for found, place in inner:
        yield from _part(found, place)


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    kinds = (field.annotation, *get_args(field.annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _settings(kind: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], str]]:
    """A data set's fields, each with its description in the docstring."""
    listed = re.search(r"^Attributes:\n((?:    .*\n?)+)", inspect.getdoc(kind) or "", flags=re.MULTILINE)
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", listed[1] if listed else "", flags=re.MULTILINE))
    for field in dataclasses.fields(kind):
        yield field, " ".join(texts[field.name].split())


def _value(default: Any) -> str:
    """As it is written in YAML; an empty mapping, and nothing, are what a field has that is left out."""
    return "" if default is None or default == {} else f"`{json.dumps(default).strip(chr(34))}`"


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = ["| field | default | what it is |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {default} | {text} |" for name, default, text in rows)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
