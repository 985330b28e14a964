"""A study that takes seconds."""

from pathlib import Path

from ranp.experiments.studies import Setting, Study, Task, Variant
from ranp.experiments.studies._request import Request

TINY = Study(
    name="tiny",
    title="A tiny study",
    question="Does it work?",
    tasks={"": Task(Setting("small-decathlon"), Setting("small-decathlon"), count=6)},
    variants=(
        Variant("full", ("pruning.method=none",)),
        Variant("half", ("pruning.budget={macs: 0.5}",)),
        Variant("nothing", ("pruning.budget={macs: 1.0e-6}",)),
    ),
)
CHANGES = (
    "data={name: decathlon, size: [8, 8, 8], validation: 0.34}",
    "network={name: unet3d, arguments: {width: 4, levels: 2}}",
    "pruning.batches=2",
    "pruning.min_width=1",
    "training.steps=4",
    "training.validate_every=2",
)


def make_request(out: Path, data: Path, study: Study = TINY, **more: object) -> Request:
    settings = {"study": study, "out": out, "data": {"": data}, "small": True, "seeds": 2, "changes": CHANGES}
    return Request(**{**settings, **more})  # type: ignore[arg-type]
