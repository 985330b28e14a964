"""The commands on a network: `ranp check`, `ranp profile`, `ranp prune` and `ranp apply`."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ranp.cli import _options as options
from ranp.cli._output import print_pruning, print_results, working
from ranp.errors import InputError


def check(
    model: options.Model,
    arguments: options.Arguments = None,
    shapes: options.Shapes = None,
    budget: options.OptionalLimits = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Show what can be pruned in a network, and verify a randomly pruned version of it.

    No data are needed. The exit code is 1 if the verification fails.
    """
    from ranp.check import check
    from ranp.cli._parse import parse_budget, parse_inputs, parse_network

    limits, inputs = parse_budget(budget or ["macs=25%"]), parse_inputs(model, shapes)
    with working():
        found = check(parse_network(model, arguments, seed), inputs, limits, seed=seed)
    print_pruning("check", model, inputs, found.plan, found.report, {"error": found.error}, as_json=as_json)
    if found.verified == "failed":
        raise typer.Exit(1)


def profile(
    model: options.Model,
    arguments: options.Arguments = None,
    shapes: options.Shapes = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the cost of every module of a network: parameters, multiply-adds (MACs), activation memory.

    These are the costs of one forward pass in eval mode, which is not computed.
    """
    from ranp.cli._parse import parse_inputs, parse_network
    from ranp.profile import profile

    inputs = parse_inputs(model, shapes)
    with working():
        found = profile(parse_network(model, arguments, seed=0), inputs)
    note = "MiB: activation memory, which the operators of the forward pass allocate."
    results = {
        "model": model,
        "input": [list(tensor.shape) for tensor in inputs],
        **asdict(found),
        "total": found.total.known(),
    }
    print_results("profile", results, found, note, as_json=as_json)


# -- prune -------------------------------------------------------------------------------------------------------


def prune(
    model: options.Model,
    out: options.NewFolder,
    budget: options.Limits,
    data: Annotated[str | None, typer.Option(help=f"Batches to score neurons on: {options.BATCHES}.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of the data set, if --data is a recipe.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Name of a loss, such as dice-cross-entropy; or package.module:loss or file.py:loss, a function of "
            "(outputs, targets).",
            autocompletion=options.complete_losses,
            show_default="the recipe's, or cross-entropy",
        ),
    ] = None,
    arguments: options.Arguments = None,
    shapes: options.Shapes = None,
    criterion: Annotated[
        str,
        typer.Option(
            help="How neurons are scored: {criteria}.",
            callback=options.known_criterion,
            autocompletion=options.complete_criteria,
        ),
    ] = "ranp-f",
    importance: Annotated[
        options.ImportanceName,
        typer.Option(help="Importance of a neuron: from its weights, or (cheaper) from a gate on its output."),
    ] = "parameter",
    resource_weight: Annotated[
        float | None, typer.Option(min=0, help="Weight of the cost in ranp-f, ranp-m and ranp-t.", show_default="11")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Batch size, if --data is a file (default 1) or a recipe (default: the recipe's)."),
    ] = None,
    batches: Annotated[
        int | None, typer.Option(min=1, help="Score on at most this many batches.", show_default="all; 4 of noise")
    ] = None,
    stop_at_correlation: Annotated[
        float | None,
        typer.Option(help="Stop scoring once the rank correlation with the scores of half the batches reaches this."),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="How widths follow from scores and budget: threshold, balanced, balanced(decoder=0.5).")
    ] = "threshold",
    min_width: Annotated[
        int | None,
        typer.Option(min=1, help="Least number of channels to keep in every group.", show_default="no bottlenecks"),
    ] = None,
    round_to: Annotated[
        int | None,
        typer.Option(min=1, help="Widths are multiples of this, or full.", show_default="8, where wide enough"),
    ] = None,
    weights: options.Weights = "keep",
    optimizer: options.OptimizerName = "adamw",
    precision: options.PrecisionName = "float32",
    channels_last: options.ChannelsLast = False,
    compile_: options.Compile = False,
    threads: options.Threads = None,
    times: options.Times = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Prune a network before training, and write the pruned network and its plan to a new folder.

    Costs are counted for the input shapes given by --input, or for those of the first batch. Budgets on step_time and
    train_memory are those of a training step on such a batch, with the given optimizer, precision, memory format and
    threads. The time of a step is measured on this machine: --times keeps the measurements in a file.
    """
    from itertools import islice

    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    import ranp
    from ranp.cli import _sources as sources
    from ranp.cli._parse import parse_budget, parse_inputs, parse_network
    from ranp.criteria import CRITERIA
    from ranp.experiments.runs import translate_errors
    from ranp.explorer import write_survey
    from ranp.files import new_folder
    from ranp.import_by_name import find_device
    from ranp.storage import write_artifact

    limits, on = parse_budget(budget), find_device(device)
    needs_batches = CRITERIA[criterion].needs_batches
    if needs_batches and data is None:
        raise InputError("--data", f"the criterion {criterion} needs batches", expected=options.BATCHES)
    data = data if needs_batches else None
    sources.check_options(data or "", folder, batch)
    inputs = parse_inputs(model, shapes) if shapes or data in (None, "noise") else ()
    hints = {"memory": "lower --batch, or the sizes given by --input", "disk": "free disk space and prune again"}
    with working() as progress, new_folder(out) as partial, translate_errors("prune", **hints):
        network = parse_network(model, arguments, seed)
        source = sources.Source([])
        if data == "noise":
            source = sources.noise(network, inputs, loss or source.loss, batches or 4, seed)
        elif data is not None:
            source = sources.open_source(data, folder=folder, batch=batch, seed=seed, progress=progress)
        loss = loss or source.loss
        some: Any = islice(source.batches, batches)
        if not inputs:
            inputs, some = sources.peek(some, str(data))
        network, inputs = network.to(on), tree_map_only(Tensor, lambda tensor: tensor.to(on), inputs)
        setup = ranp.TrainingSetup(
            optimizer=optimizer,
            precision=precision,
            channels_last=channels_last,
            compile=compile_,
            threads=threads,
            device=on,
        )
        result = ranp.prune(
            network,
            inputs,
            some,
            sources.find_loss(loss, source.ignore_index),
            budget=limits,
            criterion=criterion,
            importance=importance,
            resource_weight=resource_weight,
            seed=seed,
            policy=policy,
            min_width=min_width,
            round_to=round_to,
            weights=weights,
            stop_at_correlation=stop_at_correlation,
            setup=setup,
            times=None if times is None else ranp.measure_times(network, inputs, setup, file=times, progress=progress),
            progress=progress,
        )
        write_artifact(result.model, result.plan, partial)
        write_survey(partial, result.survey())
    report, scores = result.report, result.scores
    if data == "noise":
        report = replace(report, warnings=(*report.warnings, sources.NOISE))
    settings = {
        "data": data,
        "loss": loss if data else None,
        "importance": scores.importance,
        "resource_weight": scores.resource_weight,
        "batches": scores.batches,
        "stability": scores.stability,
        "step_time": asdict(report.step_time) if report.step_time else None,
        "weights": weights,
        "out": str(out),
    }
    print_pruning("prune", model, inputs, result.plan, report, settings, as_json=as_json)


# -- apply -------------------------------------------------------------------------------------------------------


def apply(
    plan: Annotated[
        Path, typer.Argument(help="A folder written by ranp prune, ranp apply or ranp.save; or a plan.json.")
    ],
    model: options.Model,
    out: options.NewFolder,
    arguments: options.Arguments = None,
    shapes: options.Shapes = None,
    weights: options.Weights = "keep",
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Prune a network by an existing plan, verify it, and write it to a new folder.

    MODEL is the full network that the plan was made for, or a similar one.
    Its number of input channels and of classes may differ; the weights that are kept are its own.
    """
    import ranp
    from ranp.cli._parse import parse_inputs, parse_network
    from ranp.explorer import survey, write_survey
    from ranp.files import new_folder
    from ranp.report import make_report
    from ranp.storage import load_plan, write_artifact

    inputs = parse_inputs(model, shapes)
    with working(), new_folder(out) as partial:
        chosen = load_plan(plan)
        network = parse_network(model, arguments, seed)
        small = ranp.apply(network, chosen, weights=weights, seed=seed)
        begin = time.perf_counter()
        verification = ranp.verify(network, chosen, inputs)
        full, pruned = ranp.trace(network, inputs), ranp.trace(small, inputs)
        seconds = {"apply": time.perf_counter() - begin}
        report = make_report(full, chosen, verification=verification.status, note=verification.warning, seconds=seconds)
        # First and last layers may differ from those that the plan was made for: widths and costs are counted again.
        rows = zip(report.layers, pruned.layers, strict=True)
        layers = tuple(replace(row, kept=layer.width) for row, layer in rows)
        report = replace(report, layers=layers, before=full.cost(), after=pruned.cost())
        write_artifact(small, chosen, partial)
        write_survey(partial, survey(full, chosen, verification=report.verification, warnings=report.warnings))
    settings = {"plan": str(plan), "weights": weights, "seed": seed, "out": str(out)}
    print_pruning("apply", model, inputs, chosen, report, settings, as_json=as_json)
