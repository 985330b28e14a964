"""The share of its time that training waits for data, for every recipe that runs on a CPU.

Run `python benchmarks/loading.py`, with `--hippocampus FOLDER` for the recipes of that data set, too. Every recipe is
trained as `ranp train` does it, on data that it generates itself, with each number of workers; the share is that of
`ranp compare`. What counts is that it stays below a tenth with the recipe's own number of workers, marked by a star.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from ranp.environment import hardware
from ranp.experiments.recipes import Recipe, read_recipe, recipe_file
from ranp.experiments.runs import run_recipe

GENERATED = {
    "small-decathlon": 20,
    "small-decathlon-2d": 20,
    "small-brats18": 12,
    "small-shapenet": 4,
    "small-ucf101": 9,
}
"""Recipes, and how many samples of their data to write."""
REAL = ("hippocampus", "hippocampus-2d")
WORKERS = (0, 2)
BAR = 0.1


def main(
    hippocampus: Annotated[Path | None, typer.Option(help="Folder of Task04_Hippocampus.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train for.", show_default="the recipes'")] = None,
    only: Annotated[list[str] | None, typer.Option(help="This recipe only; repeat for several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Train, and print the shares."""
    names = [*GENERATED, *(REAL if hippocampus else ())]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in (name for name in names if not only or name in only):
            data = hippocampus if name in REAL else generated(name, Path(folder))
            assert data is not None
            for workers in WORKERS:
                found.append(measured(name, data, workers, steps, Path(folder)))
    if as_json:
        print(json.dumps({"hardware": hardware(torch.device("cpu")), "shares": found}, indent=1))
    else:
        Console().print(table(found))


def recipe(name: str, *changes: str) -> Recipe:
    return read_recipe(recipe_file(name), changes)


def generated(name: str, folder: Path) -> Path:
    recipe(name).data_set().generate(folder / name, count=GENERATED[name], seed=0)
    return folder / name


def measured(name: str, data: Path, workers: int, steps: int | None, folder: Path) -> dict[str, Any]:
    """One training; its first batches, for which the workers must begin, count, too."""
    changes = [f"training.workers={workers}"]
    if steps is not None:
        changes += [f"training.steps={steps}", f"training.validate_every={steps}"]
    out = folder / f"{name}-{workers}"
    result = run_recipe(recipe(name, *changes), data, out, resume=False, progress=lambda *_: None)
    return {
        "recipe": name,
        "workers": workers,
        "own": workers == recipe(name).training.workers,
        "step_seconds": result["step_seconds"],
        "steps": result["steps"],
        "waiting": result["seconds_waiting"] / result["seconds"],
    }


def table(found: list[dict[str, Any]]) -> Table:
    shown = Table("recipe", "workers", "steps", "a step (ms)", "waiting for data", "below a tenth")
    shown.title = hardware(torch.device("cpu"))
    for each in found:
        workers = f"{each['workers']}{' *' if each['own'] else ''}"
        verdict = "yes" if each["waiting"] < BAR else "no"
        step = f"{each['step_seconds'] * 1e3:,.1f}"
        shown.add_row(each["recipe"], workers, str(each["steps"]), step, f"{each['waiting']:.1%}", verdict)
    return shown


if __name__ == "__main__":
    typer.run(main)
