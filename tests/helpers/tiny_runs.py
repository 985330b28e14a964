"""An experiment that takes a second."""

import copy
import csv
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ranp.experiments.recipes import Recipe, read_recipe
from ranp.experiments.runs import run_recipe
from ranp.progress import no_progress

CONTENT: dict[str, Any] = {
    "about": "for tests",
    "data": {"name": "decathlon", "size": [8, 8, 8], "validation": 0.34},
    "network": {"name": "unet3d", "arguments": {"width": 4, "levels": 2}},
    "pruning": {"method": "ranp-f", "budget": {"macs": 0.5}, "batches": 2},
    "training": {
        "loss": "dice-cross-entropy",
        "rate": 0.01,
        "batch": 2,
        "steps": 12,
        "validate_every": 4,
        "checkpoint_every": 3,
    },
}


def recipe(**changes: Any) -> Recipe:
    """The tiny recipe; `training__steps=3` changes a field of a part."""
    content = copy.deepcopy(CONTENT)
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    return read_recipe(content)


quiet = no_progress


def run(chosen: Recipe, data: Path, out: Path, *, resume: bool = False) -> dict[str, Any]:
    return run_recipe(chosen, data, out, resume=resume)


def curve(out: Path) -> list[dict[str, str]]:
    """All validations, without what depends on the clock."""
    with (out / "curve.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def same_outcome(one: Path, other: Path) -> bool:
    """Whether two runs made the same plan, the same validations and, bit for bit, the same weights."""
    plans = [(out / "plan" / "plan.json").read_bytes() for out in (one, other)]
    weights = [load_file(out / "best.safetensors") for out in (one, other)]
    last = [torch.load(out / "last.ckpt", weights_only=True)["model"] for out in (one, other)]
    return (
        plans[0] == plans[1]
        and curve(one) == curve(other)
        and all(
            first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
            for first, second in (weights, last)
        )
    )
