"""All commands, and how each of them ends."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from ranp import __version__
from ranp.cli import _bench, _fit, _networks, _nnunet, _runs
from ranp.cli._options import Command
from ranp.cli._reproduce import Reproduce
from ranp.errors import RanpError


class Commands(TyperGroup):
    """Ends every command with an exit code and at most one line of error; `--debug` shows the stack trace."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # A closed pipe raises here, where it is handled.
            return result
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error
        except Exception as error:
            # typer handles exits, invalid command lines and closed pipes.
            handled = hasattr(error, "exit_code") or isinstance(error, (typer.Abort, BrokenPipeError))
            if handled or ctx.params["debug"]:
                raise
            report = f"please report it with the output of ranp --debug {ctx.invoked_subcommand} ..."
            bug = f"{type(error).__name__}: {error}; this is a bug in ranp: {report}"
            line = " ".join((str(error) if isinstance(error, RanpError) else bug).split())
            Console(stderr=True).print(Text.assemble(("error:", "bold red"), " ", line), soft_wrap=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    name="ranp",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 success; 1 refused or failed (the error says why); 2 invalid command line; 130 interrupted."
    "\n\nExample: ranp check unet3d --input 1,1,32,32,32 --budget macs=10%",
)


def _version(given: bool) -> None:
    if given:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Prune a convolutional network once, before training, by the importance and the cost of its neurons."""


def _group(name: str, summary: str, example: str, cls: type[TyperGroup] = TyperGroup) -> typer.Typer:
    group = typer.Typer(help=summary, no_args_is_help=True, epilog=f"Example: ranp {example}", cls=cls)
    app.add_typer(group, name=name)
    if cls is not TyperGroup:
        group.callback()(lambda: None)  # typer leaves out groups without commands; this one finds its own.
    return group


def _add(group: typer.Typer, command: Any, example: str, name: str | None = None) -> None:
    """Add a command whose help ends with an example."""
    group.command(name, cls=Command, epilog=f"Example: ranp {example}")(command)


SMALL = "recipes/small-decathlon.yaml"
_add(app, _runs.demo, "demo --quick --out first")
_add(app, _networks.check, "check unet3d --input 1,1,32,32,32 --budget macs=10%")
_add(app, _networks.profile, "profile unet3d --input 1,1,32,32,32")
_add(app, _networks.prune, "prune unet3d --input 1,1,32,32,32 --data noise --budget macs=5% --out pruned")
_add(app, _fit.fit, "fit unet3d --input 2,1,64,64,64 --memory 2GiB --macs 100% --macs 25%")
_add(app, _networks.apply, "apply pruned unet3d --input 1,1,32,32,32 --weights orthogonal --out other")
_add(app, _bench.bench, "bench pruned unet3d --input 2,1,32,32,32 --precision bf16-mixed --channels-last")
_add(app, _runs.train, f"train {SMALL} --data data --out runs/pruned")
_add(app, _runs.evaluate, "evaluate runs/pruned --data data")
_add(app, _runs.compare, "compare runs/pruned runs/full")
_add(app, _runs.report, "report runs/pruned --compare runs/full")
_group("reproduce", "Reproduce the published experiments.", "reproduce resources --networks shapenet", Reproduce)
data = _group(
    "data", "Check a data set, or generate a small one to try a recipe on.", f"data check {SMALL} --data data"
)
_add(data, _runs.check_data, f"data check {SMALL} --data data", "check")
_add(data, _runs.generate_data, f"data generate {SMALL} --count 20 --out data", "generate")
nnunet = _group(
    "nnunet",
    "Make the trainer nnUNetTrainerRanp available to nnU-Net v2, or show what fits into memory.",
    "nnunet install",
)
_add(nnunet, _nnunet.install, "nnunet install")
_add(nnunet, _nnunet.path, "nnunet path")
_add(nnunet, _nnunet.fit, "nnunet fit nnUNetPlans.json --configuration 3d_fullres --memory 11GiB")


def main() -> None:
    """Run the command line."""
    app(prog_name="ranp")
