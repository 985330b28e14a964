"""The largest batch of each variant in the memory that the first one needs for its recipe's batch."""

from collections.abc import Callable
from typing import Any

import torch

from ranp.costs import peak_step_bytes, step_seconds
from ranp.experiments.studies._figures import Figures, write_figures
from ranp.experiments.studies._request import Request
from ranp.experiments.studies._workload import Workload, workload
from ranp.progress import Progress

MOST = 4096
"""Where the search ends."""


def measure_batches(request: Request, figures: Figures, *, tell: Progress) -> None:
    """Search, and write what was measured on the way.

    Args:
        request: Which study.
        figures: What is known; `batches` is replaced.
        tell: Told of progress.

    Raises:
        InputError: There are no networks to measure.
    """
    for task in request.study.tasks:
        figures["batches"][task] = _measure(request, task, tell)
        write_figures(request.out, figures)


def _measure(request: Request, task: str, tell: Progress) -> dict[str, Any]:
    work = workload(request, task, 0, tell)
    batch, reference = len(work.batch[0]), next(iter(work.models))
    limit = _peak(work, reference, batch)
    assert limit is not None
    variants: dict[str, Any] = {}
    for done, name in enumerate(work.models):
        tell("search the largest batch", done, len(work.models))
        peaks: dict[int, int | None] = {batch: limit} if name == reference else {}
        largest = largest_within(limit, lambda count, name=name: _peak(work, name, count), batch, peaks)  # type: ignore[misc]
        variants[name] = {
            "peaks": {str(count): peak for count, peak in sorted(peaks.items())},
            "largest": largest,
            "samples_per_second": largest / _seconds(work, name, largest) if largest else None,
        }
    return {
        **work.circumstances(),
        "limit_bytes": limit,
        "variants": variants,
    }


def largest_within(
    limit: int, peak_of: Callable[[int], int | None], first: int, peaks: dict[int, int | None] | None = None
) -> int:
    """The largest batch whose peak memory is within a limit: doubled until it is not, then halved in between.

    Args:
        limit: In bytes.
        peak_of: Measures the peak of a batch, in bytes; None if memory runs out. It grows with the batch.
        first: Batch to begin with.
        peaks: What is known already; what is measured is added.

    Returns:
        The batch; 0 if not even one sample fits. The search ends at `MOST`.

    Example:
        >>> largest_within(1000, lambda batch: 100 + 33 * batch, 2)
        27
    """
    peaks = {} if peaks is None else peaks

    def fits(batch: int) -> bool:
        if batch not in peaks:
            peaks[batch] = peak_of(batch)
        peak = peaks[batch]
        return peak is not None and peak <= limit

    low, high = 0, first
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1 and high <= MOST:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _peak(work: Workload, name: str, count: int) -> int | None:
    batch = work.batch_of(count)
    try:
        peak = peak_step_bytes({name: work.models[name]}, batch, work.loss_fn, work.make_optimizer)[name]
        # The batch is in memory before the peak is looked for.
        return peak + sum(part.nbytes for part in batch)
    except torch.OutOfMemoryError:
        return None


def _seconds(work: Workload, name: str, count: int) -> float:
    batch, model = work.batch_of(count), {name: work.models[name]}
    return step_seconds(model, batch, work.loss_fn, work.make_optimizer, repeats=5, limit_seconds=60)[name]
