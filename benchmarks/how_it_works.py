"""Draws the plots of docs/how-it-works.md: the demo's network, pruned on the demo's MRI.

    python benchmarks/how_it_works.py

It takes less than a minute on one core and needs `pip install 'ranp[demo,report]'`.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import ranp
from ranp.experiments.plots import FAINT, blank_figure, importance_per_layer, tidy
from ranp.experiments.recipes import read_recipe, recipe_file
from ranp.experiments.runs import full_network, open_run
from ranp.explorer import read_survey
from ranp.graph import ChannelGraph

IMAGES = Path(__file__).parents[1] / "docs" / "images"
RESOURCES = {"macs": "multiply-adds", "params": "parameters", "activation_bytes": "activations", "neurons": "neurons"}
# Okabe and Ito's palette, as in the other plots.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def main() -> None:
    recipe = read_recipe(recipe_file("demo"))
    assert recipe.pruning.budget is not None
    assert recipe.pruning.budget.macs is not None
    with (
        tempfile.TemporaryDirectory() as place,
        open_run(recipe, Path(place), Path(place, "run"), device=torch.device("cpu")) as run,
    ):
        assert run.scores is not None
        importance_per_layer(run.scores.stages).savefig(IMAGES / "importance.png", dpi=100)
        graph = ranp.trace(full_network(recipe, run.bundle), torch.zeros(1, *run.bundle.input_shape))
        steps = read_survey(run.folder.path / "survey.json")["steps"]
    draw_budgets(all_budgets(graph, [step["widths"] for step in steps]), recipe.pruning.budget.macs)


def all_budgets(graph: ChannelGraph, widths: Sequence[Sequence[int]]) -> dict[str, list[float]]:
    """Fractions kept by plans over the whole range of budgets, by resource."""
    full = graph.cost()
    costs = [graph.cost(kept) for kept in widths]
    return {name: [getattr(cost, name) / getattr(full, name) for cost in costs] for name in RESOURCES}


def draw_budgets(kept: Mapping[str, Sequence[float]], chosen: float) -> None:
    """Everything else against the multiply-adds that are kept."""
    figure = blank_figure(8, 4.6)
    axis = figure.subplots()
    for (name, label), colour in zip(RESOURCES.items(), COLOURS, strict=True):
        axis.plot(kept["macs"], kept[name], color=colour, linewidth=2, label=label)
    axis.axvline(chosen, color="#222222", linewidth=1, linestyle="--")
    axis.annotate(f"the demo's budget, {chosen:.0%}", (chosen, 1.02), (6, 0), textcoords="offset points", va="center")
    axis.set_xscale("log")
    ticks = (0.001, 0.01, 0.1, 1)
    axis.set_xticks(ticks, [f"{tick:.1%}".replace(".0%", "%") for tick in ticks])
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.set_xlabel("multiply-adds kept")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.93))
    tidy(axis, "What is kept, over all budgets of one scoring")
    figure.savefig(IMAGES / "budgets.png", dpi=100)


if __name__ == "__main__":
    main()
