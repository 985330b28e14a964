"""Draws the plots of docs/how-it-works.md: the network of the demo, pruned on the MRI of the demo.

    python benchmarks/how_it_works.py

It takes less than a minute on one core and needs `pip install 'ranp[demo]'`.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch

import ranp
from ranp.experiments.data.mni152 import TISSUES, batches, load_brain, split
from ranp.experiments.losses import dice_cross_entropy
from ranp.experiments.plots import DARK_GRAY, LIGHT_GRAY, PALETTE, blank_figure, importance_per_layer, style_panel
from ranp.models import UNet3D

IMAGES = Path(__file__).parents[1] / "docs" / "images"
RESOURCES = {"macs": "multiply-adds", "params": "parameters", "activation_bytes": "activations", "neurons": "neurons"}
BUDGET = ranp.Budget(macs=0.05)
# As in the demo.
WIDTH, PATCH, BATCH, SCORING_BATCHES = 32, 16, 8, 8


def main() -> None:
    training, _ = split(load_brain())
    torch.manual_seed(0)
    model = UNet3D(1, len(TISSUES), width=WIDTH)
    drawn = list(islice(batches(training, patch=PATCH, batch=BATCH, seed=0), SCORING_BATCHES))
    result = ranp.prune(model, torch.zeros(1, 1, *[PATCH] * 3), drawn, dice_cross_entropy, budget=BUDGET)
    importance_per_layer(result.scores.stages).savefig(IMAGES / "importance.png", dpi=100)
    draw_budgets(kept_over_budgets(result), BUDGET.macs or 1.0)


def kept_over_budgets(result: ranp.PruneResult) -> dict[str, list[float]]:
    """Fraction of each resource that the plans for the whole range of budgets keep."""
    full = result.graph.cost()
    costs = [result.graph.cost(step["widths"]) for step in result.survey()["steps"]]
    return {name: [getattr(cost, name) / getattr(full, name) for cost in costs] for name in RESOURCES}


def draw_budgets(kept: Mapping[str, Sequence[float]], chosen: float) -> None:
    """Plot all resources against the multiply-adds that are kept."""
    figure = blank_figure(8, 4.6)
    axis = figure.subplots()
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
