"""The fraction of its time that training waits for data, for every recipe that runs on a CPU.

Run `python benchmarks/loading.py`; add `--hippocampus FOLDER` for the recipes of that data set. Every recipe is trained
as by `ranp train`, on generated data, with each number of workers; the fraction is that of `ranp compare`. It should be
below 10% with the recipe's own number of workers, marked by a star.
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
"""Recipes, and how many samples of their data to generate."""
REAL = ("hippocampus", "hippocampus-2d")
WORKERS = (0, 2)
LIMIT = 0.1


def main(
    hippocampus: Annotated[Path | None, typer.Option(help="Folder of Task04_Hippocampus.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train for.", show_default="the recipes'")] = None,
    only: Annotated[list[str] | None, typer.Option(help="This recipe only; repeat for several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Train, and print the fractions."""
    names = [*GENERATED, *(REAL if hippocampus else ())]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in (name for name in names if not only or name in only):
            data = hippocampus if name in REAL else generate(name, Path(folder))
            assert data is not None
            for workers in WORKERS:
                results.append(measure(name, data, workers, steps, Path(folder)))
    if as_json:
        print(json.dumps({"hardware": hardware(torch.device("cpu")), "waiting": results}, indent=1))
    else:
        Console().print(table(results))


def recipe(name: str, *changes: str) -> Recipe:
    return read_recipe(recipe_file(name), changes)


def generate(name: str, folder: Path) -> Path:
    recipe(name).data_set().generate(folder / name, count=GENERATED[name], seed=0)
    return folder / name


def measure(name: str, data: Path, workers: int, steps: int | None, folder: Path) -> dict[str, Any]:
    """One training, including the start of the workers."""
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


def table(results: list[dict[str, Any]]) -> Table:
    shown = Table("recipe", "workers", "steps", "step (ms)", "waiting for data", "below 10%")
    shown.title = hardware(torch.device("cpu"))
    for each in results:
        workers = f"{each['workers']}{' *' if each['own'] else ''}"
        verdict = "yes" if each["waiting"] < LIMIT else "no"
        step = f"{each['step_seconds'] * 1e3:,.1f}"
        shown.add_row(each["recipe"], workers, str(each["steps"]), step, f"{each['waiting']:.1%}", verdict)
    return shown


if __name__ == "__main__":
    typer.run(main)
