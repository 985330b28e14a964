"""The command line: a thin typed shell over the library.

Exit codes: 0 done; 1 ranp refused (bad input, a budget that cannot be met, ...) and said why in one line; 2 the command
line itself is wrong; 130 interrupted.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ranp.budget import Budget
from ranp.check import Check, parse_budget, parse_shape
from ranp.check import check as run_check
from ranp.demo import demo
from ranp.errors import RanpError
from ranp.models import BUILT_IN
from ranp.reproduce import resources
from ranp.runs import compare, data, evaluate, train
from ranp.studies import STUDIES, command_of

app = typer.Typer(
    name="ranp",
    help="Prune a convolutional network once, before training, by what each neuron is worth and what it costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
reproduce = typer.Typer(help="Reproduce the published experiments.", no_args_is_help=True)
app.add_typer(reproduce, name="reproduce")
app.add_typer(data, name="data")
for command in (demo, train, evaluate, compare):
    app.command()(command)
reproduce.command()(resources)
for name, study in STUDIES.items():
    reproduce.command(name)(command_of(study))


@app.command()
def check(
    model: Annotated[str, typer.Argument(help=f"{', '.join(BUILT_IN)}, or package.module:factory.")],
    shapes: Annotated[
        list[str] | None, typer.Option("--input", help="Shape of an input, such as 1,1,64,64,64; repeat for several.")
    ] = None,
    budget: Annotated[list[str] | None, typer.Option(help="Such as macs=25%; repeat for several.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random scores.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Tell what can be pruned in a network and what not, and prove it on a randomly pruned one.

    Example: ranp check mypackage.nets:build --input 1,1,64,64,64 --budget macs=10%
    """
    sys.path.insert(0, str(Path.cwd()))  # a module beside the user can be named, as with `python -m`
    limits = parse_budget(budget or ["macs=25%"])
    found = run_check(model, [parse_shape(text) for text in shapes or []], limits, seed=seed)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _show_check(found, limits)
    if found.verified == "failed":
        raise typer.Exit(1)


def _show_check(found: Check, budget: Budget) -> None:
    console = Console()
    console.print(*found.report.tables(), sep="\n")
    for entry in found.frozen:
        where = entry.path or "the model"
        console.print(
            f"whole: {entry.channels} channels, {entry.macs_share:.1%} of the MACs, since {entry.operator} in {where} "
            f"{entry.reason}",
            markup=False,
            highlight=False,
        )
    for warning in found.report.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False)
    asked = ", ".join(f"{name}={value:g}" for name, value in budget.given())
    verdict = f"failed: {found.error}" if found.error else found.verified
    console.print(f"Pruned to {asked} in {found.seconds:.2f} s. Verification: {verdict}.", markup=False)


def main() -> None:
    """Run the command line; a user's error ends in one line, never in a stack trace."""
    try:
        app()
    except RanpError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
