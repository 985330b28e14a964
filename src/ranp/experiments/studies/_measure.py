"""What a training step of each variant takes, all measured in one go: they are compared with each other."""

from typing import Any

from ranp.costs import peak_step_bytes, step_seconds
from ranp.experiments.studies._figures import Figures, write_figures
from ranp.experiments.studies._request import Request
from ranp.experiments.studies._workload import workload
from ranp.progress import Progress

REPEATS, LIMIT_SECONDS = 20, 300.0


def measure_study(request: Request, figures: Figures, *, tell: Progress) -> None:
    """Measure a step's time and peak memory for all variants that have been pruned, and write it.

    The networks of one seed take turns, so that whatever else the machine does falls on all of them alike; an idle
    machine is needed all the same.

    Args:
        request: Which study.
        figures: What is known; `measured` is replaced.
        tell: Told of progress.

    Raises:
        InputError: There are no networks to measure.
    """
    for task in request.study.tasks:
        figures["measured"][task] = _measure(request, task, tell)
        write_figures(request.out, figures)


def _measure(request: Request, task: str, tell: Progress) -> dict[str, Any]:
    work = workload(request, task, 0, tell)
    tell("measure steps", 0, 2)
    batch = work.batch_of(len(work.batch[0]))
    seconds = step_seconds(
        work.models, batch, work.loss_fn, work.make_optimizer, repeats=REPEATS, limit_seconds=LIMIT_SECONDS
    )
    tell("measure steps", 1, 2)
    peaks = peak_step_bytes(work.models, batch, work.loss_fn, work.make_optimizer)
    tell("measure steps", 2, 2)
    return {
        **work.circumstances(),
        "variants": {name: {"step_seconds": seconds[name], "peak_bytes": peaks[name]} for name in work.models},
    }
