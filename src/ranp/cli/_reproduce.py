"""`ranp reproduce resources`."""

from typing import Annotated

import typer

from ranp.cli import _words as words
from ranp.cli._options import AsJson, Seed
from ranp.cli._output import print_json, stdout, working


def resources(
    networks: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Of {', '.join(words.PUBLISHED)}; with commas or repeated.",
            show_default="all",
            autocompletion=words.published,
        ),
    ] = None,
    seed: Seed = 0,
    batches: Annotated[int, typer.Option(min=1, help="Synthetic mini-batches to score with.")] = 4,
    as_json: AsJson = False,
) -> None:
    """The source paper's resource table, computed anew, beside the published figures."""
    from dataclasses import asdict

    from ranp.experiments.reproduce import NETWORKS, NOTE, resource_tables, run_resources

    names = [name for option in networks or NETWORKS for name in option.split(",")]
    with working() as tell:
        rows = run_resources(names, seed=seed, batches=batches, progress=tell)
    if as_json:
        print_json("resources", {"seed": seed, "batches": batches, "rows": [asdict(row) for row in rows]})
    else:
        stdout().print(*resource_tables(rows), NOTE, sep="\n")
