"""Draws the plots of docs/how-it-works.md: the network of the demo, pruned on the MRI of the demo.

    python benchmarks/how_it_works.py

It takes less than a minute on one core and needs `pip install 'ranp[demo]'`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import ranp
from ranp.experiments.data import ResumableSampler, derive_seed, resumable_loader, sample_count
from ranp.experiments.losses import objective
from ranp.experiments.plots import DARK_GRAY, LIGHT_GRAY, PALETTE, importance_per_layer, panels, style_panel
from ranp.experiments.recipes import read_recipe, recipe_file
from ranp.experiments.runs import full_network

IMAGES = Path(__file__).parents[1] / "docs" / "images"
RESOURCES = {"macs": "multiply-adds", "params": "parameters", "activation_bytes": "activations", "neurons": "neurons"}


def main() -> None:
    recipe = read_recipe(recipe_file("demo"))
    bundle = recipe.data_set().open(Path())
    stop, batch, seed = recipe.pruning.batches, recipe.training.batch, derive_seed(recipe.seed, "scoring")
    assert isinstance(stop, int)
    sampler = ResumableSampler(sample_count(bundle.train), batch, seed=seed, start=0, stop=stop)
    batches = resumable_loader(bundle.train, sampler, workers=0, pin=False)
    model, example = full_network(recipe, bundle), torch.zeros(1, *bundle.input_shape)
    loss_fn = objective(recipe.training.loss, bundle.ignore_index)
    result = ranp.prune(model, example, batches, loss_fn, budget=ranp.Budget(macs=0.05), seed=recipe.seed)
    importance_per_layer(result.scores.stages).savefig(IMAGES / "importance.png", dpi=100)
    draw_budgets(kept_over_budgets(result), 0.05)


def kept_over_budgets(result: ranp.PruneResult) -> dict[str, list[float]]:
    """Fraction of each resource that the plans for the whole range of budgets keep."""
    full = result.graph.cost()
    costs = [result.graph.cost(step["widths"]) for step in result.survey()["steps"]]
    return {name: [getattr(cost, name) / getattr(full, name) for cost in costs] for name in RESOURCES}


def draw_budgets(kept: Mapping[str, Sequence[float]], chosen: float) -> None:
    """Plot all resources against the multiply-adds that are kept."""
    figure, axis = panels(8, 4.6)
    for (name, label), color in zip(RESOURCES.items(), PALETTE, strict=False):
        axis.plot(kept["macs"], kept[name], color=color, linewidth=2, label=label)
    axis.axvline(chosen, color=DARK_GRAY, linewidth=1, linestyle="--")
    axis.annotate(f"budget of the demo: {chosen:.0%}", (chosen, 1.02), (6, 0), textcoords="offset points", va="center")
    axis.set_xscale("log")
    ticks = (0.001, 0.01, 0.1, 1)
    axis.set_xticks(ticks, [f"{tick:.1%}".replace(".0%", "%") for tick in ticks])
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    axis.grid(axis="y", color=LIGHT_GRAY, linewidth=0.8)
    axis.set_xlabel("multiply-adds kept")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.93))
    style_panel(axis, "Resources kept, for every budget of one scoring")
    figure.savefig(IMAGES / "budgets.png", dpi=100)


if __name__ == "__main__":
    main()
