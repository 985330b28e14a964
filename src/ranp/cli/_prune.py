"""`ranp prune`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ranp.cli import _words as words
from ranp.cli._options import OWN, Arguments, AsJson, Device, Limits, Model, NewFolder, Seed, Shapes, Weights
from ranp.cli._output import print_json, stdout, working
from ranp.errors import InputError

_MEMORY, _DISK = "lower --batch, or the sizes given by --input", "make room and prune again"


def prune(
    model: Model,
    out: NewFolder,
    budget: Limits,
    data: Annotated[
        str | None,
        typer.Option(
            help=f"Batches to score neurons with: {OWN}, which returns an iterable of (inputs, targets); a file of "
            "both (.npz, .safetensors, .pt); a recipe, with --folder; or noise."
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of the data set, where --data is a recipe.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(words.LOSSES)}; or package.module:loss or file.py:loss, of (outputs, targets).",
            autocompletion=words.losses,
            show_default="the recipe's, or cross-entropy",
        ),
    ] = None,
    arguments: Arguments = None,
    shapes: Shapes = None,
    criterion: Annotated[words.Criterion, typer.Option(help="How neurons are scored.")] = "ranp-f",
    importance: Annotated[
        words.Importance, typer.Option(help="Of a neuron's weights, or (cheaper) of a gate on it.")
    ] = "parameter",
    resource_weight: Annotated[
        float | None,
        typer.Option(
            "--resource-weight", "--lam", min=0, help="Weight of the cost in ranp-f and ranp-m.", show_default="11"
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples a batch, of a file (1) or a recipe (the recipe's).")
    ] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="Score with at most so many batches.", show_default="all; 4 of noise")
    ] = None,
    stop_at_correlation: Annotated[
        float | None,
        typer.Option(
            "--stop-at-correlation",
            "--until",
            help="Score until the ranking correlates so much with that of half the batches.",
        ),
    ] = None,
    min_width: Annotated[int, typer.Option(min=1, help="Channels that every group keeps at least.")] = 1,
    round_to: Annotated[int, typer.Option(min=1, help="Round widths down to multiples of this.")] = 1,
    weights: Weights = "keep",
    seed: Seed = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Prune a network before training, and write the smaller one with its plan into a new folder.

    Costs are counted for inputs as --input says, or as in the first batch.
    """
    import ranp
    from ranp.cli import _sources as sources
    from ranp.cli._figures import pruning_figures, scoring_figures, show_folder, show_pruning
    from ranp.cli._parse import parse_arguments, parse_budget, parse_inputs
    from ranp.experiments.runs import translate_errors
    from ranp.explorer import write_survey
    from ranp.files import new_folder
    from ranp.import_by_name import build_network, find_device
    from ranp.scoring import CRITERIA
    from ranp.storage import write_artifact

    limits, on = parse_budget(budget), find_device(device)
    scored = CRITERIA[criterion].importance
    if scored and data is None:
        raise InputError("--data", got="nothing", expected=sources.KINDS)
    data = data if scored else None
    sources.check_together(data or "", folder, batch)
    inputs = parse_inputs(model, shapes) if shapes or data in (None, "noise") else ()
    with working() as tell, new_folder(out) as partial, translate_errors("prune", memory=_MEMORY, disk=_DISK):
        network = build_network(model, parse_arguments(arguments), seed=seed)
        source = sources.Source([])
        if data == "noise":
            source = sources.noise(network, inputs, loss or source.loss, batches, seed)
        elif data is not None:
            source = sources.open_source(data, folder=folder, batch=batch, seed=seed, tell=tell)
        loss = loss or source.loss
        some = sources.at_most(source.batches, batches)
        if not inputs:
            inputs, some = sources.peek(some, str(data))
        result = ranp.prune(
            network.to(on),
            sources.moved(inputs, on),
            some,
            sources.find_loss(loss, source.ignore_index),
            budget=limits,
            criterion=criterion,
            importance=importance,
            resource_weight=resource_weight,
            seed=seed,
            min_width=min_width,
            round_to=round_to,
            weights=weights,
            stop_at_correlation=stop_at_correlation,
            progress=tell,
        )
        write_artifact(result.model, result.plan, partial)
        write_survey(partial, result.survey())
    report = result.report
    if data == "noise":
        report = replace(report, warnings=(*report.warnings, sources.NOISE))
    if as_json:
        how = {"data": data, "loss": loss if data else None, **scoring_figures(result.scores)}
        figures = pruning_figures(model, inputs, result.plan, report)
        print_json("prune", {**figures, **how, "weights": weights, "out": str(out)})
    else:
        show_pruning(stdout(), result.plan, report)
        show_folder(stdout(), out)
