"""Measurements of a study's networks: time and peak memory of a training step, and the largest batch that fits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import ranp
from ranp.costs.measure import peak_step_bytes, step_seconds
from ranp.environment import hardware, versions
from ranp.errors import InputError
from ranp.experiments.data import DataBundle, ResumableSampler, resumable_loader, sample_count
from ranp.experiments.losses import Objective, objective
from ranp.experiments.recipes import Recipe, TrainingFields
from ranp.experiments.runs import fabric_precision, full_network, make_fabric, make_optimizer, to_channels_last
from ranp.experiments.studies._results import Results, write_results
from ranp.experiments.studies._running import StudyRequest
from ranp.experiments.studies._studies import Variant
from ranp.progress import Progress

REPEATS, LIMIT_SECONDS = 20, 300.0
LARGEST_BATCH = 4096
"""Upper limit of the search for the largest batch."""


@dataclass(frozen=True, eq=False)
class Workload:
    """The networks of a task with their initial weights, and what a training step needs.

    Attributes:
        models: The network of each variant, on the device.
        batch: Inputs and targets, on the CPU.
        loss_fn: Loss of the recipe.
        make_optimizer: Creates the optimizer of the recipe.
        device: Device to measure on.
        seed: Seed of the runs that the networks come from.
    """

    models: dict[str, nn.Module]
    batch: tuple[Tensor, Tensor]
    loss_fn: Objective
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    device: torch.device
    seed: int

    def batch_of(self, size: int) -> tuple[Tensor, Tensor]:
        """A batch of that size, on the device; the samples are repeated as often as needed."""
        rows = torch.arange(size) % len(self.batch[0])
        return self.batch[0][rows].to(self.device), self.batch[1][rows].to(self.device)

    def environment(self) -> dict[str, Any]:
        """What every measurement is stored with."""
        return {
            "hardware": hardware(self.device),
            "versions": versions(("ranp", "torch")),
            "seed": self.seed,
            "batch": len(self.batch[0]),
        }


def measure_study(request: StudyRequest, results: Results, *, progress: Progress) -> None:
    """Measure time and peak memory of a training step of all pruned networks, and write the results.

    The networks take turns, so that other load on the machine affects all of them alike; the machine should be idle all
    the same.

    Args:
        request: The study.
        results: Results known so far; `measured` is replaced.
        progress: Progress callback.

    Raises:
        InputError: There are no pruned networks.
    """
    for task in request.study.tasks:
        work = workload(request, task, 0, progress)
        batch = work.batch_of(len(work.batch[0]))
        step = (work.models, batch, work.loss_fn, work.make_optimizer)
        progress("measure steps", 0, 2)
        seconds = step_seconds(*step, repeats=REPEATS, limit_seconds=LIMIT_SECONDS)
        progress("measure steps", 1, 2)
        peaks = peak_step_bytes(*step)
        progress("measure steps", 2, 2)
        variants = {name: {"step_seconds": seconds[name], "peak_bytes": peaks[name]} for name in work.models}
        results["measured"][task] = {**work.environment(), "variants": variants}
        write_results(request.out, results)


def measure_batches(request: StudyRequest, results: Results, *, progress: Progress) -> None:
    """Search the largest batch of each network in the memory that the first one needs for the batch of its recipe.

    Args:
        request: The study.
        results: Results known so far; `batches` is replaced, and the results are written.
        progress: Progress callback.

    Raises:
        InputError: There are no pruned networks.
    """
    for task in request.study.tasks:
        work = workload(request, task, 0, progress)
        batch, baseline = len(work.batch[0]), next(iter(work.models))
        limit = _peak(work, baseline, batch)
        assert limit is not None
        variants: dict[str, Any] = {}
        for done, name in enumerate(work.models):
            progress("search the largest batch", done, len(work.models))
            peaks: dict[int, int | None] = {batch: limit} if name == baseline else {}
            largest = largest_within(limit, partial(_peak, work, name), batch, peaks)
            variants[name] = {
                "peaks": {str(size): peak for size, peak in sorted(peaks.items())},
                "largest": largest,
                "samples_per_second": largest / _seconds(work, name, largest) if largest else None,
            }
        results["batches"][task] = {**work.environment(), "limit_bytes": limit, "variants": variants}
        write_results(request.out, results)


def largest_within(
    limit: int, peak_of: Callable[[int], int | None], first: int, peaks: dict[int, int | None] | None = None
) -> int:
    """The largest batch whose peak memory is within a limit: doubles the batch until it is not, then bisects.

    Args:
        limit: Limit in bytes.
        peak_of: Measures the peak of a batch in bytes, which grows with the batch; None if memory runs out.
        first: Batch to begin with.
        peaks: Peaks known already; measured ones are added.

    Returns:
        The batch, at most `LARGEST_BATCH`; 0 if not even one sample fits.

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
    while high <= LARGEST_BATCH and fits(high):
        low, high = high, 2 * high
    while high - low > 1 and high <= LARGEST_BATCH:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _peak(work: Workload, name: str, size: int) -> int | None:
    batch = work.batch_of(size)
    try:
        peak = peak_step_bytes({name: work.models[name]}, batch, work.loss_fn, work.make_optimizer)[name]
    except torch.OutOfMemoryError:
        return None
    # The batch is in memory before the measurement begins.
    return peak + sum(part.nbytes for part in batch)


def _seconds(work: Workload, name: str, size: int) -> float:
    batch, model = work.batch_of(size), {name: work.models[name]}
    return step_seconds(model, batch, work.loss_fn, work.make_optimizer, repeats=5, limit_seconds=60)[name]


def workload(request: StudyRequest, task: str, seed: int, progress: Progress) -> Workload:
    """The pruned networks of a task, and what their training steps need.

    Raises:
        InputError: No variant has been pruned.
    """
    base = request.base_recipe(task)
    bundle = base.data_set().open(request.data[task], progress=progress)
    device = make_fabric(base.training.precision).device
    models = {
        variant.label: _model(request, variant, seed, bundle).to(device)
        for variant in request.study.variants_of(task)
        if request.folder(variant.label, seed).plan.exists()
    }
    if not models:
        raise InputError(
            "--measure",
            f"there is no run of seed {seed} in {request.out}, and only networks can be measured",
            hint="run the study first",
        )
    loss_fn = objective(base.training.loss, bundle.ignore_index)
    return Workload(models, _first_batch(base, bundle), loss_fn, partial(_optimizer, base.training), device, seed)


class _InBFloat16(nn.Module):
    """A model in mixed precision, as Fabric trains it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs: Tensor = self.model(inputs)
        return outputs.float()


def _model(request: StudyRequest, variant: Variant, seed: int, bundle: DataBundle) -> nn.Module:
    recipe = request.recipe_of(variant, seed)
    model = ranp.load(request.folder(variant.label, seed).plan, full_network(recipe, bundle))
    to_channels_last(recipe.training, model)
    return _InBFloat16(model) if fabric_precision(recipe.training.precision) == "bf16-mixed" else model


# Defined in this module, so that the process that measures memory imports the module when it unpickles the optimizer,
# before it unpickles the model and starts to count.
def _optimizer(training: TrainingFields, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return make_optimizer(training, parameters)


def _first_batch(recipe: Recipe, bundle: DataBundle) -> tuple[Tensor, Tensor]:
    sampler = ResumableSampler(sample_count(bundle.train), recipe.training.batch, seed=recipe.seed, start=0, stop=1)
    inputs, targets = next(iter(resumable_loader(bundle.train, sampler, workers=0, pin=False)))
    return inputs, targets
