"""Write `recipe-fields.md`, in the same folder, from the descriptions of the fields: run it when they have changed."""

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

All fields of a [recipe](train.md#recipes). `--set training.steps=300` changes one of them for one run.

This page is generated. Change the descriptions in `src/ranp/experiments/recipes/_recipe.py`, in `ranp.Budget` and in
the data sets, then run `docs/recipe_fields.py`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_part(Recipe, "")]
    parts += [_dataclass(kind, f"data: {{name: {name}}}") for name, kind in DATA_SETS.items()]
    return "\n".join(parts)


def _part(model: type[BaseModel], path: str) -> Iterator[str]:
    """A section for the fields of a model, and one for each model among them."""
    rows, inner = [], []
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _value(field.get_default())
        rows.append((name, default, " ".join((field.description or "").split())))
        inner += [(found, f"{path}.{name}".lstrip(".")) for found in _models(field)]
    yield f"## {path or 'The recipe'}\n\n{model.__doc__}\n\n{_table(rows)}"
    for found, place in inner:
        if dataclasses.is_dataclass(found):
            yield _dataclass(found, place)
        else:
            yield from _part(found, place)


def _dataclass(kind: type[Any], title: str) -> str:
    """A section for the fields of a dataclass."""
    # Custom limits need functions, which a recipe cannot hold: it refuses them.
    rows = [(field.name, _default(field), text) for field, text in _settings(kind) if field.name != "custom"]
    return f"## {title}\n\n{(inspect.getdoc(kind) or '').splitlines()[0]}\n\n{_table(rows)}"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return _value(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else _value(field.default)


def _models(field: FieldInfo) -> list[type[Any]]:
    """The models and dataclasses that a field may hold."""
    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
    return [kind for kind in kinds if dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel)]


def _settings(kind: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], str]]:
    """The fields of a dataclass, each with its description in the docstring."""
    listed = re.search(r"^Attributes:\n((?:    .*\n?)+)", inspect.getdoc(kind) or "", flags=re.MULTILINE)
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", listed[1] if listed else "", flags=re.MULTILINE))
    for field in dataclasses.fields(kind):
        yield field, " ".join(texts[field.name].split())


def _value(default: Any) -> str:
    """As in YAML; nothing for None and for an empty mapping, which are the same as a field that is left out."""
    return "" if default is None or default == {} else f"`{json.dumps(default).strip(chr(34))}`"


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = ["| field | default | meaning |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {default} | {text} |" for name, default, text in rows)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
