"""`ranp train`, `ranp evaluate`, `ranp compare` and `ranp data`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ranp.cli._options import AsJson, Changes, DataFolder, NewFolder, RecipeFile, Seed
from ranp.cli._output import print_json, stdout, working
from ranp.files import is_rank_zero


def train(
    recipe: RecipeFile,
    data: DataFolder,
    out: Annotated[Path, typer.Option(help="Folder of the run: a new one, unless it is resumed.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the folder's run, if there is one.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Prune once, then train, as a recipe says."""
    need_recipes()
    from ranp.experiments.recipes import read_recipe
    from ranp.experiments.runs import run_recipe, runs_table

    chosen = read_recipe(recipe, changes or (), seed)
    with working(bars=is_rank_zero()) as tell:
        result = {"run": str(out), **run_recipe(chosen, data, out, resume=resume, progress=tell)}
    if not is_rank_zero():
        return
    if as_json:
        print_json("train", result)
    else:
        stdout().print(runs_table([result]).rich())


def evaluate(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")], data: DataFolder, as_json: AsJson = False
) -> None:
    """Judge the best weights of a run by the data set's metric; figures go to evaluation.json in its folder."""
    need_recipes()
    from ranp.experiments.runs import evaluate_run

    with working(bars=is_rank_zero()) as tell:
        found = evaluate_run(out, data, progress=tell)
    if as_json:
        print_json("evaluate", {"run": str(out), **found})
        return
    for name, value in found["metrics"].items():
        print(f"{name}: {'-' if value is None else format(value, '.4f')}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")], as_json: AsJson = False
) -> None:
    """Put finished runs side by side: metrics, costs, time."""
    from ranp.experiments.runs import read_runs, runs_table

    found = read_runs(runs)
    if as_json:
        print_json("compare", {"runs": found})
    else:
        stdout().print(runs_table(found).rich())


def check_data(recipe: RecipeFile, data: DataFolder, changes: Changes = None) -> None:
    """Read every file of a recipe's data set, and list what is missing or damaged: exit code 1 if anything is."""
    with working() as tell:
        problems = _data_set(recipe, changes).check(data, progress=tell)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print("All files are there and can be read.")


def generate_data(
    recipe: RecipeFile,
    out: NewFolder,
    count: Annotated[int | None, typer.Option(min=1, help="How many samples; see the data set.")] = None,
    seed: Seed = 0,
    changes: Changes = None,
) -> None:
    """Write a small data set, in the layout that a recipe reads, which can be learned."""
    more = {} if count is None else {"count": count}
    with working():
        _data_set(recipe, changes).generate(out, seed=seed, **more)


def _data_set(recipe: Path, changes: list[str] | None) -> Any:
    need_recipes()
    from ranp.experiments.recipes import read_recipe

    return read_recipe(recipe, changes or ()).data_set()


def need_recipes() -> None:
    """See to it that recipes can be read.

    Raises:
        RanpError: A package is missing.
    """
    from ranp.optional import optional_import

    for module in ("pydantic", "yaml"):
        optional_import(module, "recipe")
