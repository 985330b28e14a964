"""Everything a demo leaves behind."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_safetensors
from torch import nn

import ranp
from ranp.experiments import plots
from ranp.experiments.data.mni152 import TISSUES, Brain, Region
from ranp.experiments.demo._dice import predict
from ranp.experiments.demo._race import Tell
from ranp.experiments.demo._report import markdown

STAGES = {
    "importance": "importance as measured",
    "weighted": "after equalising the layers' means",
    "ranp-f": "after favouring layers of few MACs (RANP-f)",
}


def write_files(
    folder: Path,
    report: Mapping[str, Any],
    pruning: ranp.PruneResult,
    models: Mapping[str, nn.Module],
    data: tuple[Brain, Region, Region],
    tell: Tell,
) -> None:
    """Write report, pictures, plan and weights.

    Args:
        folder: An existing folder.
        report: The report as a dictionary.
        pruning: What `ranp.prune` returned.
        models: The trained networks by name.
        data: Brain, training region, validation region.
        tell: Told of progress.
    """
    names = {"full": "full", "pruned": f"pruned ({report['settings']['macs']:.0%} MACs)"}
    drawings: dict[str, Callable[[], Any]] = {
        "dice.png": lambda: draw_curves(report, names),
        "importance.png": lambda: plots.importance_per_layer(
            {STAGES.get(stage, stage): scores for stage, scores in pruning.scores.stages.items()}
        ),
        "channels.png": lambda: plots.channels_kept(pruning.plan.widths, pruning.plan.full_widths),
        "segmentation.png": lambda: draw_slice(report, names, models, *data),
    }
    tell("draw and write", 0, len(drawings) + 1)
    for done, (name, draw) in enumerate(drawings.items(), start=1):
        draw().savefig(folder / name)
        tell("draw and write", done, len(drawings) + 1)
    ranp.save(pruning.model, pruning.plan, folder / "pruned")
    weights = {name: tensor.cpu().contiguous() for name, tensor in models["full"].state_dict().items()}
    (folder / "full.safetensors").write_bytes(to_safetensors(weights))
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    tell("draw and write", len(drawings) + 1, len(drawings) + 1)


def draw_curves(report: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """Dice against time and steps."""
    return plots.dice_curves(
        {
            title: [{**point, "dice": point["dice"]["mean"]} for point in report[name]["curve"]]
            for name, title in names.items()
        }
    )


def draw_slice(
    report: Mapping[str, Any],
    names: Mapping[str, str],
    models: Mapping[str, nn.Module],
    brain: Brain,
    training: Region,
    validation: Region,
) -> Any:
    """A coronal slice of the validation region with both segmentations beside the truth."""
    # 12 mm in front of the origin: through the lateral ventricle, the caudate and the putamen.
    depth = brain.origin[1] + 12
    across, along, _ = validation.box
    here = min(depth - along.start, validation.image.shape[1] - 1)
    # A slab as thick as a training patch, so that the networks see what lies before and behind the slice.
    half = report["settings"]["patch"] // 2
    first = max(0, here - half)
    slab = validation.image[:, first : here + half]
    labelled = {"truth": validation.labels[:, here].numpy()}
    for name, title in names.items():
        predicted = predict(models[name], slab[None, None])[0, 0, :, here - first].numpy()
        labelled[f"{title}\nmean Dice {report[name]['dice']['mean']:.3f}"] = predicted
    return plots.segmentations(
        validation.image[:, here].numpy(),
        labelled,
        TISSUES,
        locator=(
            brain.image[:, :, brain.origin[2] + 10],
            {"training": training.box[:2], "validation": (across, along)},
            depth,
        ),
    )
