"""The commands on recipes and runs: `ranp train`, `evaluate`, `compare`, `report`, `data` and `demo`."""

import os
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from ranp.cli._options import AsJson, Changes, DataFolder, Device, NewFolder, RecipeFile, Seed
from ranp.cli._output import print_results, working


def train(
    recipe: RecipeFile,
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Folder of the run; a new one, except with --resume.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in this folder, if there is one.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Replaces the seed of the recipe.")] = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Prune a network once, then train it, as a recipe describes."""
    from ranp.experiments.recipes import read_recipe
    from ranp.experiments.runs import run_recipe, runs_table

    chosen = read_recipe(recipe, changes or (), seed)
    with working() as progress:
        result = {"run": str(out), **run_recipe(chosen, data, out, resume=resume, progress=progress)}
    print_results("train", result, runs_table([result]), as_json=as_json)


def evaluate(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")], data: DataFolder, as_json: AsJson = False
) -> None:
    """Evaluate the best weights of a run with the metrics of the data set, and write evaluation.json to its folder."""
    from ranp.experiments.runs import evaluate_run

    with working() as progress:
        found = evaluate_run(out, data, progress=progress)
    metrics = [f"{name}: {'-' if value is None else format(value, '.4f')}" for name, value in found["metrics"].items()]
    print_results("evaluate", {"run": str(out), **found}, *metrics, as_json=as_json)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")], as_json: AsJson = False
) -> None:
    """Compare finished runs: metrics, costs, time."""
    from ranp.experiments.runs import read_runs, runs_table

    found = read_runs(runs)
    print_results("compare", {"runs": found}, runs_table(found), as_json=as_json)


# -- report ------------------------------------------------------------------------------------------------------


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a pruned network or of a run, which may be unfinished.")],
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="report.html in the folder")] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare", help="Folder of a run to compare with, such as that of the full network; can be repeated."
        ),
    ] = None,
) -> None:
    """Write a report of a pruned network or a run: results, plots, training, and plans for other budgets.

    The report is one HTML file, which works offline.
    """
    from ranp.explorer import write_report

    others = others or []
    if not (is_run := (folder / "run.json").is_file()) and not others:
        print(write_report(folder, out))
        return
    from ranp.experiments.runs import read_run_summary, runs_table

    runs = [read_run_summary(path) for path in [*([folder] if is_run else []), *others]]
    names = [run.name for run in runs]
    for place, name in enumerate(names):
        if before := names[:place].count(name):  # Runs that have the same name are numbered.
            runs[place] = replace(runs[place], name=f"{name} ({before + 1})")
    finished = [{**run.result, "run": run.name} for run in runs if run.result is not None]
    comparison = runs_table(finished) if finished else None
    own, rest = (runs[0], runs[1:]) if is_run else (None, runs)
    print(write_report(folder, out, run=own, runs=rest, comparison=comparison))


# -- data sets ---------------------------------------------------------------------------------------------------


def check_data(recipe: RecipeFile, data: DataFolder, changes: Changes = None) -> None:
    """Read every file of a recipe's data set, and list missing and damaged files: exit code 1 if there are any."""
    with working() as progress:
        problems = _data_set(recipe, changes).check(data, progress=progress)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print("No file is missing or damaged.")


def generate_data(
    recipe: RecipeFile,
    out: NewFolder,
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of samples; the default depends on the data set.")
    ] = None,
    seed: Seed = 0,
    changes: Changes = None,
) -> None:
    """Write a small synthetic data set, in the layout that the recipe reads, to try the recipe on."""
    more = {} if count is None else {"count": count}
    with working():
        _data_set(recipe, changes).generate(out, seed=seed, **more)


def _data_set(recipe: Path, changes: list[str] | None) -> Any:
    from ranp.experiments.recipes import read_recipe

    return read_recipe(recipe, changes or ()).data_set()


# -- demo --------------------------------------------------------------------------------------------------------


def demo(
    out: Annotated[
        Path | None, typer.Option(help="A new folder for all results.", show_default="ranp-demo, ranp-demo-2, ...")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Takes one minute instead of four.")] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Prune a 3D U-Net before training, and train it and the full network on a real MRI."""
    from ranp.experiments.demo import DEFAULT, QUICK, comparison, quickest_threads, run
    from ranp.files import new_folder
    from ranp.import_by_name import find_device

    names = (f"ranp-demo-{number}".removesuffix("-1") for number in count(1))
    folder = out or next(Path(name) for name in names if not os.path.lexists(name))
    on = find_device(device)
    with working() as progress, new_folder(folder) as partial, quickest_threads():
        results = run(partial, QUICK if quick else DEFAULT, seed=seed, device=on, progress=progress)
    note = f"The report, plots, plan and weights are in {folder}/; start with report.md."
    print_results("demo", {"out": str(folder), **results}, comparison(results), note, as_json=as_json)
