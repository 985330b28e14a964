"""`ranp reproduce resources`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ranp.reproduce._networks import NETWORKS
from ranp.reproduce._report import NOTE, check_writable, tables, write
from ranp.reproduce._resources import run_resources


def resources(
    networks: Annotated[
        list[str] | None,
        typer.Option(help=f"Of {', '.join(NETWORKS)}; with commas or repeated.", show_default="all"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this new file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the JSON file if it exists.")] = False,
    seed: Annotated[int, typer.Option(help="Of the weights, the inputs and random pruning.")] = 0,
    batches: Annotated[int, typer.Option(min=1, help="Synthetic mini-batches to score with.")] = 4,
) -> None:
    """The source paper's resource table, computed anew, beside the published figures."""
    if json_file is not None:
        check_writable(json_file, force=force)
    names = [name for option in networks or NETWORKS for name in option.split(",")]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console()
    with Progress(*columns, console=console, transient=True) as bars:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        rows = run_resources(names, seed=seed, batches=batches, progress=show)
    console.print(*tables(rows), NOTE, sep="\n")
    if json_file is not None:
        write(rows, json_file)
        console.print(f"Rows written to {json_file}.")
