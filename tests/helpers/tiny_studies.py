"""A study that takes seconds."""

import json
from pathlib import Path
from typing import Any

from ranp.experiments.studies import RecipeChoice, Study, Task, Variant
from ranp.experiments.studies.running import StudyRequest

TINY = Study(
    name="tiny",
    title="A tiny study",
    question="Does it work?",
    tasks={"": Task(RecipeChoice("small-decathlon"), RecipeChoice("small-decathlon"), count=6)},
    variants=(
        Variant("full", ("pruning.method=none",)),
        Variant("half", ("pruning.budget={macs: 0.5}",)),
        Variant("nothing", ("pruning.budget={macs: 1.0e-6}",)),
    ),
)
MEASURED = {
    "hardware": "a machine",
    "versions": {"torch": "2"},
    "seed": 0,
    "batch": 2,
    "variants": {
        "full": {"step_seconds": 0.4, "peak_bytes": 200 * 2**20},
        "half": {"step_seconds": 0.1, "peak_bytes": 50 * 2**20},
    },
}
"""Measured steps of `TINY`, as in its results."""
BATCHES = {
    "hardware": "a machine",
    "versions": {"torch": "2"},
    "seed": 0,
    "batch": 2,
    "limit_bytes": 100 * 2**20,
    "variants": {
        "full": {"peaks": {"2": 100 * 2**20, "4": 150 * 2**20}, "largest": 2, "samples_per_second": 3.0},
        "half": {"peaks": {"1": None}, "largest": 0, "samples_per_second": None},
    },
}
"""Largest batches of `TINY`, as in its results."""
CHANGES = (
    "data={name: decathlon, size: [8, 8, 8], validation: 0.34}",
    "network={name: unet3d, arguments: {width: 4, levels: 2}}",
    "pruning.batches=2",
    "pruning.min_width=1",
    "training.steps=4",
    "training.validate_every=2",
)


def make_request(out: Path, data: Path, study: Study = TINY, **more: object) -> StudyRequest:
    settings = {"study": study, "out": out, "data": {"": data}, "small": True, "seeds": 2, "changes": CHANGES}
    return StudyRequest(**{**settings, **more})  # type: ignore[arg-type]


def values_of_runs(request: StudyRequest, label: str, file: str, *path: str) -> list[float]:
    """A value in a JSON file of the runs of a variant, one per seed."""
    found = []
    for seed in range(request.seeds):
        value: Any = json.loads((request.out / label / f"seed-{seed}" / file).read_text())
        for name in path:
            value = value[name]
        found.append(value)
    return found
