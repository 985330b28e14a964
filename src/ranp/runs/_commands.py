"""`ranp train`, `ranp evaluate`, `ranp compare` and `ranp data`; what they need is imported when they run."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from ranp.data import Progress
from ranp.data._base import need

Data = Annotated[Path, typer.Option(help="Folder of the data set.")]
RecipeFile = Annotated[Path, typer.Argument(help="A recipe: a YAML file, such as those in recipes/.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field, such as training.steps=10; repeat for several.")
]

data = typer.Typer(help="Check a data set, or write a small one to try a recipe on.", no_args_is_help=True)


def train(
    recipe: RecipeFile,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run: a new one, unless it is resumed.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the folder's run, if there is one.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")] = None,
    changes: Changes = None,
) -> None:
    """Prune once, then train, as a recipe says.

    Example: ranp train recipes/small-decathlon.yaml --data Task04_Hippocampus --out runs/first
    """
    _ready()
    from ranp.recipes import read_recipe
    from ranp.runs._compare import table_of
    from ranp.runs._train import run_recipe

    chosen = read_recipe(recipe, changes or (), seed)
    with _bars() as tell:
        result = run_recipe(chosen, data, out, resume=resume, tell=tell)
    if _is_first():
        Console().print(table_of([{"run": str(out), **result}]))


def evaluate(
    out: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Data,
) -> None:
    """Judge the best weights of a run by the data set's metric; figures go to evaluation.json in its folder."""
    _ready()
    from ranp.runs._evaluate import evaluate_run

    with _bars() as tell:
        found = evaluate_run(out, data, tell=tell)
    for name, value in found["figures"].items():
        print(f"{name}: {'-' if value is None else format(value, '.4f')}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Put finished runs side by side: metrics, costs, time."""
    from ranp.runs._compare import read_runs, table_of

    found = read_runs(runs)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        Console().print(table_of(found))


@data.command("check")
def check_data(recipe: RecipeFile, data: Data, changes: Changes = None) -> None:
    """Read every file of a recipe's data set, and list what is missing or damaged."""
    with _bars() as tell:
        problems = _data_set(recipe, changes).check(data, progress=tell)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print("All files are there and can be read.")


@data.command("generate")
def generate_data(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    count: Annotated[int | None, typer.Option(min=1, help="How many samples; see the data set.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    changes: Changes = None,
) -> None:
    """Write a small data set, in the layout that a recipe reads, which can be learned."""
    more = {} if count is None else {"count": count}
    _data_set(recipe, changes).generate(out, seed=seed, **more)


def _data_set(recipe: Path, changes: list[str] | None) -> Any:
    _ready()
    from ranp.recipes import read_recipe

    return read_recipe(recipe, changes or ()).data_set()


def _ready() -> None:
    """See to it that recipes can be read, and that they can name what lies beside the user, as with `python -m`."""
    for module in ("pydantic", "yaml"):
        need(module, "recipe")
    sys.path.insert(0, str(Path.cwd()))


def _is_first() -> bool:
    """Whether this process is alone, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _bars() -> Iterator[Progress]:
    """Progress bars, one for each kind of work."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True, disable=not _is_first()) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield tell
