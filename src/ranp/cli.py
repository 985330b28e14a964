"""The command line: a thin typed shell; every command imports only what it needs."""

import sys

import typer
from rich.console import Console

from ranp.errors import RanpError

app = typer.Typer(
    name="ranp",
    help="Prune a convolutional network once, before training, by what each neuron is worth and what it costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
