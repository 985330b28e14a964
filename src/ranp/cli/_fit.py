"""`ranp fit`: which width, batch size and input size fit into memory."""

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ranp.cli import _options as options
from ranp.cli._output import print_results, working

if TYPE_CHECKING:
    from ranp.fitting import FitResult

Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory that training may take: an amount such as 11GiB, or a fraction of the device's, such as 80%.",
        show_default="all memory of the device",
    ),
]
Macs = Annotated[
    list[str] | None,
    typer.Option(
        "--macs", help="Multiply-adds to keep, such as 50%; can be repeated.", show_default="100, 75, 50, 25, 10 and 5%"
    ),
]


def fit(
    model: options.Model,
    arguments: options.Arguments = None,
    shapes: options.Shapes = None,
    memory: Memory = None,
    macs: Macs = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Name of a loss, such as dice-cross-entropy.",
            autocompletion=options.complete_losses,
            show_default="the mean of squares",
        ),
    ] = None,
    optimizer: options.OptimizerName = "adamw",
    precision: options.PrecisionName = "float32",
    channels_last: options.ChannelsLast = False,
    multiple: Annotated[
        int | None, typer.Option(min=1, help="Sides of inputs are multiples of this.", show_default="what it accepts")
    ] = None,
    time: Annotated[
        bool, typer.Option("--time", help="Also predict the time of a step, from measurements on this machine.")
    ] = False,
    times: options.Times = None,
    device: Annotated[
        str, typer.Option(help="cpu or cuda; with --memory and without --time, it need not exist here.")
    ] = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Show which width, batch size and input size fit into memory in training.

    No training step is run, except to measure times. The batch size and the input size are those of --input.
    """
    import ranp
    from ranp.cli import _sources as sources
    from ranp.cli._parse import parse_inputs, parse_network
    from ranp.fitting import CRITERION, FRACTIONS
    from ranp.import_by_name import find_device

    inputs = parse_inputs(model, shapes)
    with working() as progress:
        network, batch, loss_fn = parse_network(model, arguments, seed=0), None, None
        if loss is not None:
            loss_fn = sources.find_loss(loss, ignore_index=-100)
            (batch,) = sources.noise(network, inputs, loss, 1, seed=0).batches
        setup = ranp.TrainingSetup(
            loss_fn=loss_fn,
            batch=batch,
            optimizer=optimizer,
            precision=precision,
            channels_last=channels_last,
            device=device,
        )
        measured = None
        if time or times is not None:
            find_device(device)
            measured = ranp.measure_times(network, inputs, setup, file=times, progress=progress)
        found = ranp.fit(
            network,
            inputs,
            setup,
            memory=memory,
            macs=macs or FRACTIONS,
            multiple=multiple,
            times=measured,
            progress=progress,
        )
    words = [word for text in arguments or () for word in ("--set", text)]
    words += [word for tensor in inputs for word in ("--input", ",".join(map(str, tensor.shape)))]

    def command(limit: str) -> str:
        out = f"pruned-{limit.partition('=')[2]}"
        return shlex.join(["ranp", "prune", model, *words, "--criterion", CRITERION, "--budget", limit, "--out", out])

    settings = {
        "model": model,
        "input": [list(tensor.shape) for tensor in inputs],
        "loss": loss,
        "optimizer": optimizer,
        "precision": precision,
        "channels_last": channels_last,
        "device": device,
    }
    print_fit("fit", settings, found, command, as_json=as_json)


def print_fit(
    name: str, settings: Mapping[str, Any], found: "FitResult", command: Callable[[str], str], *, as_json: bool
) -> None:
    """Print what fits, and for each width the command that leads to it; `command` makes it from a limit."""
    rows = [
        {
            "budget": dict(row.budget.given()),
            "widths": list(row.widths),
            "cost": row.cost.known(),
            "process_bytes": row.process_bytes,
            "largest_batch": row.largest_batch,
            "largest_size": list(row.largest_size),
            "command": command(str(row.budget)) if row.widths != found.full_widths else None,
        }
        for row in found.rows
    ]
    results = {
        **settings,
        "memory_bytes": found.memory_bytes,
        "margin": found.margin,
        "batch": found.batch,
        "size": list(found.size),
        "full_cost": found.full_cost.known(),
        "full_widths": list(found.full_widths),
        "rows": rows,
        "notes": list(found.notes),
    }
    lines = [f"note: {note}" for note in found.notes]
    lines += [f"{row.budget}: {each['command']}" for row, each in zip(found.rows, rows, strict=True) if each["command"]]
    print_results(name, results, found, *lines, as_json=as_json)
