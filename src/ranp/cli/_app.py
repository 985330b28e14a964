"""All commands in one place, and how each of them ends."""

import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from ranp import __version__
from ranp.cli._apply import apply
from ranp.cli._check import check
from ranp.cli._demo import demo
from ranp.cli._nnunet import install, path
from ranp.cli._profile import profile
from ranp.cli._prune import prune
from ranp.cli._report import report
from ranp.cli._reproduce import resources
from ranp.cli._runs import check_data, compare, evaluate, generate_data, train
from ranp.cli._studies import command_of
from ranp.errors import RanpError
from ranp.experiments.studies import STUDIES

UNEXPECTED = "that is a fault of ranp's: please report it, with what the same command shows after ranp --debug"
EXIT_CODES = (
    "Exit codes: 0 done; 1 refused or failed, for a reason that is told; 2 the command line is wrong; 130 interrupted."
)


class Commands(TyperGroup):
    """Ends every command in an exit code; an error is told in a line or two, its stack trace only with `--debug`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # A pipe that was closed is found here, where it can be dealt with.
            return result
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error
        except RanpError as error:
            _fail(error, str(error), debug=ctx.params["debug"])
        except Exception as error:
            # Exits, wrong command lines and closed pipes are typer's to deal with.
            if hasattr(error, "exit_code") or isinstance(error, (typer.Abort, BrokenPipeError)):
                raise
            _fail(error, f"{type(error).__name__}: {error}; {UNEXPECTED}", debug=ctx.params["debug"])


def _fail(error: Exception, told: str, *, debug: bool) -> NoReturn:
    if debug:
        raise error
    line = " ".join(told.split())
    Console(stderr=True).print(Text.assemble(("error:", "bold red"), " ", line), soft_wrap=True)
    raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    name="ranp",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=f"{EXIT_CODES}\n\nExample: ranp check unet3d --input 1,1,32,32,32 --budget macs=10%",
)
data = typer.Typer(
    help="Check a data set, or write a small one to try a recipe on.",
    no_args_is_help=True,
    epilog="Example: ranp data check recipes/small-decathlon.yaml --data data",
)
nnunet = typer.Typer(
    help="Let nnU-Net v2 find the trainer nnUNetTrainerRanp.",
    no_args_is_help=True,
    epilog="Example: ranp nnunet install",
)
reproduce = typer.Typer(
    help="Reproduce the published experiments.",
    no_args_is_help=True,
    epilog="Example: ranp reproduce resources --networks shapenet",
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Prune a convolutional network once, before training, by what each neuron is worth and what it costs."""


def add(group: typer.Typer, command: Any, example: str, name: str | None = None) -> None:
    """Add a command whose help ends with an example."""
    group.command(name, epilog=f"Example: ranp {example}")(command)


SMALL = "recipes/small-decathlon.yaml"
add(app, demo, "demo --quick --out first")
add(app, check, "check unet3d --input 1,1,32,32,32 --budget macs=10%")
add(app, profile, "profile unet3d --input 1,1,32,32,32")
add(app, prune, "prune unet3d --input 1,1,32,32,32 --data noise --budget macs=5% --out pruned")
add(app, apply, "apply pruned unet3d --input 1,1,32,32,32 --weights orthogonal --out other")
add(app, train, f"train {SMALL} --data data --out runs/pruned")
add(app, evaluate, "evaluate runs/pruned --data data")
add(app, compare, "compare runs/pruned runs/full")
add(app, report, "report runs/pruned --beside runs/full")
add(reproduce, resources, "reproduce resources --networks shapenet")
for study in STUDIES.values():
    add(reproduce, command_of(study), f"reproduce {study.name} --small --out {study.name}", study.name)
add(data, check_data, f"data check {SMALL} --data data", "check")
add(data, generate_data, f"data generate {SMALL} --count 20 --out data", "generate")
add(nnunet, install, "nnunet install")
add(nnunet, path, "nnunet path")
app.add_typer(reproduce, name="reproduce")
app.add_typer(data, name="data")
app.add_typer(nnunet, name="nnunet")


def main() -> None:
    """Run the command line."""
    app(prog_name="ranp")
