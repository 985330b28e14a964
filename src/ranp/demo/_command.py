"""`ranp demo`."""

import os
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ranp.demo._report import rows
from ranp.demo._settings import DEFAULT, QUICK
from ranp.demo._threads import quickest_threads
from ranp.files import new_folder


def demo(
    out: Annotated[
        Path | None, typer.Option(help="A new folder for everything.", show_default="ranp-demo, ranp-demo-2, ...")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One minute instead of four.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the patches.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Prune a 3D U-Net before training, on a real MRI, and train it beside the full one."""
    from ranp.demo._pipeline import find_device, run

    folder = out or first_free(Path(), "ranp-demo")
    on = find_device(device)
    console = Console()
    with new_folder(folder) as partial, quickest_threads(), _bars(console) as bars:
        report = run(partial, QUICK if quick else DEFAULT, seed=seed, device=on, tell=_Teller(bars))
    table = Table("", "full", "pruned", "change", title="A 3D U-Net, full and pruned before training")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows(report):
        table.add_row(*row)
    console.print(table)
    console.print(f"Report, pictures, plan and weights are in {folder}/; start with report.md.", highlight=False)


def first_free(parent: Path, name: str) -> Path:
    """The first of `name`, `name-2`, `name-3`, ... that does not exist in the parent folder."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(parent / each for each in names if not os.path.lexists(parent / each))


def _bars(console: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)


class _Teller:
    """Turns what is told into progress bars: a new one for every new piece of work."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total or None)
        self._bars.update(self._tasks[what], completed=done)
