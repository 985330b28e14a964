"""`ranp check`."""

import typer

from ranp.cli._options import Arguments, AsJson, Model, OptionalLimits, Seed, Shapes
from ranp.cli._output import print_json, stdout, working


def check(
    model: Model,
    arguments: Arguments = None,
    shapes: Shapes = None,
    budget: OptionalLimits = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Tell what can be pruned in a network and what not, and prove it on a randomly pruned one.

    It needs no data. Exit code 1 if the proof fails.
    """
    from ranp.check import check
    from ranp.cli._figures import pruning_figures, show_pruning
    from ranp.cli._parse import parse_arguments, parse_budget, parse_inputs
    from ranp.import_by_name import build_network

    limits, inputs = parse_budget(budget or ["macs=25%"]), parse_inputs(model, shapes)
    with working():
        found = check(build_network(model, parse_arguments(arguments), seed=seed), inputs, limits, seed=seed)
    if as_json:
        print_json("check", {**pruning_figures(model, inputs, found.plan, found.report), "error": found.error})
    else:
        show_pruning(stdout(), found.plan, found.report, found.error)
    if found.verified == "failed":
        raise typer.Exit(1)
