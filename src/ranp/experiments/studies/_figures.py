"""Figures of a study's runs as plain data, kept in one file: what is in it is not computed again.

```
{"format": "ranp-study", "version": 1, "study": NAME,
 "runs": {VARIANT: {SEED: {"recipe", "pruning", "result", "curve"} or {"recipe", "infeasible": REASON}}},
 "measured": {TASK: step times and memory}, "batches": {TASK: largest batches}}
```
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError
from ranp.experiments.recipes import Recipe
from ranp.experiments.runs._folder import PRUNING, RunFolder, check_same, read_curve, read_json
from ranp.files import is_rank_zero, write_json
from ranp.storage import load_plan

FORMAT, VERSION = "ranp-study", 1
FILE = "results.json"

Figures = dict[str, Any]
"""All figures of a study, as in the file."""
Entry = dict[str, Any]
"""Figures of one run."""


def read_figures(name: str, paths: Iterable[Path]) -> Figures:
    """Figures of a study out of all files that exist; where several have the same, those of the first are taken.

    Raises:
        ArtifactError: A file is damaged, or of something else.
    """
    found: Figures = {"format": FORMAT, "version": VERSION, "study": name, "runs": {}, "measured": {}, "batches": {}}
    for path in paths:
        if path.exists():
            content = _read(path, name)
            for label, runs in content["runs"].items():
                found["runs"][label] = {**runs, **found["runs"].get(label, {})}
            for part in ("measured", "batches"):
                found[part] = {**content[part], **found[part]}
    return found


def _read(path: Path, name: str) -> Figures:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        got = f"{content['format']!r} version {content['version']!r} of {content['study']!r}"
        if (content["format"], content["version"], content["study"]) == (FORMAT, VERSION, name):
            return {**content, "runs": dict(content["runs"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
    raise ArtifactError(str(path), got=got, expected=f"figures of the study {name}")


def write_figures(folder: Path, figures: Figures) -> None:
    """Write the file of a study's folder, at once or not at all; of several processes the first one does."""
    if not is_rank_zero():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, figures)


def read_run(folder: RunFolder, *, trained: bool) -> Entry | None:
    """Figures of a run; None if it is not finished.

    Args:
        folder: Of the run.
        trained: Whether it is finished only once it is trained, not already when it is pruned.
    """
    if not (folder.result if trained else folder.plan).exists():
        return None
    pruning = _without_format(read_json(folder.pruning, PRUNING))
    entry: Entry = {
        "recipe": plain_recipe(read_json(folder.record)["recipe"]),
        "pruning": {**pruning, "full_widths": dict(load_plan(folder.plan).full_widths)},
    }
    if trained:
        entry |= {"result": _without_format(read_json(folder.result)), "curve": list(read_curve(folder.curve))}
    return entry


def infeasible(recipe: Recipe, reason: str) -> Entry:
    """The entry of a run that cannot be."""
    return {"recipe": plain_recipe(recipe.model_dump(mode="json")), "infeasible": reason}


def is_figures_of(entry: Entry, recipe: Recipe, place: str) -> None:
    """Refuse figures of a run of another recipe.

    Raises:
        InputError: They are; the message names the field.
    """
    check_same(place, entry["recipe"], plain_recipe(recipe.model_dump(mode="json")))


def plain_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without the place of a plan that was taken over, which differs from machine to machine."""
    return {**recipe, "pruning": {**recipe["pruning"], "plan": None}}


def _without_format(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in ("format", "version")}
