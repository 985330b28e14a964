"""`ranp apply`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ranp.cli._options import Arguments, AsJson, Model, NewFolder, Seed, Shapes, Weights
from ranp.cli._output import print_json, stdout, working

if TYPE_CHECKING:
    from torch import nn

    from ranp.graph import ChannelGraph
    from ranp.plan import Plan
    from ranp.report import Report


def apply(
    plan: Annotated[Path, typer.Argument(help="A folder that ranp prune or ranp.save wrote, or a plan.json.")],
    model: Model,
    out: NewFolder,
    arguments: Arguments = None,
    shapes: Shapes = None,
    weights: Weights = "keep",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Prune a network by a plan that was made before, verify it, and write it into a new folder.

    MODEL is the full network that the plan was made for, or one like it.
    Its input channels and classes may differ; its own weights are what is kept.
    """
    from ranp.cli._figures import pruning_figures, show_folder, show_pruning
    from ranp.cli._parse import parse_arguments, parse_inputs
    from ranp.explorer import survey, write_survey
    from ranp.files import new_folder
    from ranp.import_by_name import build_network
    from ranp.storage import load_plan, write_artifact
    from ranp.surgery import apply

    inputs = parse_inputs(model, shapes)
    with working(), new_folder(out) as partial:
        chosen = load_plan(plan)
        network = build_network(model, parse_arguments(arguments), seed=seed)
        small = apply(network, chosen, weights=weights, seed=seed)
        report, graph = _report(network, small, chosen, inputs)
        write_artifact(small, chosen, partial)
        write_survey(partial, survey(graph, chosen, verification=report.verification, warnings=report.warnings))
    if as_json:
        how = {"plan": str(plan), "weights": weights, "seed": seed, "out": str(out)}
        print_json("apply", {**pruning_figures(model, inputs, chosen, report), **how})
    else:
        show_pruning(stdout(), chosen, report)
        show_folder(stdout(), out)


def _report(network: "nn.Module", small: "nn.Module", plan: "Plan", inputs: Any) -> "tuple[Report, ChannelGraph]":
    """What the plan did to this network, and the network's graph.

    The first and last layers need not be those that the plan was made for.
    """
    import time
    from dataclasses import replace

    import ranp
    from ranp.report import LayerRow, make_report

    begin = time.perf_counter()
    verification = ranp.verify(network, plan, inputs)
    full, pruned = ranp.trace(network, inputs), ranp.trace(small, inputs)
    seconds = {"apply": time.perf_counter() - begin}
    report = make_report(full, plan, verification=verification.status, note=verification.note, seconds=seconds)
    rows = zip(report.layers, pruned.layers, strict=True)
    layers = tuple(LayerRow(row.layer, row.full, layer.width, row.macs_share) for row, layer in rows)
    return replace(report, layers=layers, before=full.cost(), after=pruned.cost()), full
