"""The command line: a thin typed shell over the library.

Exit codes: 0 done; 1 ranp refused (bad input, a budget that cannot be met, ...) and said why in one line; 2 the command
line itself is wrong; 130 interrupted.
"""

import sys

import typer
from rich.console import Console

from ranp.demo import demo
from ranp.errors import RanpError
from ranp.reproduce import resources

app = typer.Typer(
    name="ranp",
    help="Prune a convolutional network once, before training, by what each neuron is worth and what it costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
reproduce = typer.Typer(help="Reproduce the published experiments.", no_args_is_help=True)
app.add_typer(reproduce, name="reproduce")
app.command()(demo)
reproduce.command()(resources)


@app.callback()
def options() -> None:
    """Keeps commands under their names, however few there are."""


@reproduce.callback()
def reproduce_options() -> None:
    """Keeps `resources` under its name while it is alone."""


def main() -> None:
    """Run the command line; a user's error ends in one line, never in a stack trace."""
    try:
        app()
    except RanpError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
