"""`ranp bench`: what training and inference of the full and of a pruned network take."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ranp.cli import _options as options
from ranp.cli._output import print_results, working


def bench(
    plan: Annotated[
        Path, typer.Argument(help="A folder written by ranp prune, ranp apply or ranp.save; or a plan.json.")
    ],
    model: options.Model,
    arguments: options.Arguments = None,
    shapes: options.Shapes = None,
    optimizer: options.OptimizerName = "adamw",
    precision: options.PrecisionName = "float32",
    channels_last: options.ChannelsLast = False,
    compile_: options.Compile = False,
    threads: options.Threads = None,
    seconds: Annotated[float, typer.Option(min=0, help="Repeat measurements on a busy device for this long.")] = 60,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Measure the full and the pruned network side by side: training step, inference, peak memory.

    The batch size and the input size are those of --input. The two networks take turns. Peak memory is measured on a
    GPU, and predicted elsewhere.
    """
    import ranp
    from ranp.cli._parse import parse_inputs, parse_network
    from ranp.import_by_name import find_device
    from ranp.storage import load_plan

    inputs, on = parse_inputs(model, shapes), find_device(device)
    with working() as progress:
        full = parse_network(model, arguments, seed=0)
        pruned = ranp.apply(full, load_plan(plan))
        setup = ranp.TrainingSetup(
            optimizer=optimizer,
            precision=precision,
            channels_last=channels_last,
            compile=compile_,
            threads=threads,
            device=on,
        )
        networks = {"full": full, "pruned": pruned}
        found = ranp.bench(networks, inputs, setup, limit_seconds=seconds, progress=progress)
    results = {
        "plan": str(plan),
        "model": model,
        "input": [list(tensor.shape) for tensor in inputs],
        "batch": found.batch,
        "setup": dict(found.key),
        "memory": found.memory,
        "networks": {name: asdict(row) for name, row in found.rows.items()},
        "warnings": list(found.warnings),
    }
    warnings = [f"warning: {warning}" for warning in found.warnings]
    print_results("bench", results, found.table(), *warnings, as_json=as_json)
