"""`ranp demo`."""

import os
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from ranp.cli._options import AsJson, Device, Seed
from ranp.cli._output import print_json, stdout, working


def demo(
    out: Annotated[
        Path | None, typer.Option(help="A new folder for everything.", show_default="ranp-demo, ranp-demo-2, ...")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One minute instead of four.")] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Prune a 3D U-Net before training, on a real MRI, and train it beside the full one."""
    from rich.table import Table

    from ranp.experiments.demo import DEFAULT, QUICK, quickest_threads, rows, run
    from ranp.files import new_folder
    from ranp.import_by_name import find_device

    folder = out or first_free(Path(), "ranp-demo")
    on = find_device(device)
    with working() as tell, new_folder(folder) as partial, quickest_threads():
        report = run(partial, QUICK if quick else DEFAULT, seed=seed, device=on, progress=tell)
    if as_json:
        print_json("demo", {"out": str(folder), **report})
        return
    table = Table("", "full", "pruned", "change", title="A 3D U-Net, full and pruned before training")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows(report):
        table.add_row(*row)
    stdout().print(table)
    print(f"Report, pictures, plan and weights are in {folder}/; start with report.md.")


def first_free(parent: Path, name: str) -> Path:
    """The first of `name`, `name-2`, `name-3`, ... that does not exist in the parent folder."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(parent / each for each in names if not os.path.lexists(parent / each))
