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
from ranp.experiments.recipes import TrainingFields
from ranp.experiments.runs import fabric_precision, full_network, make_fabric, make_optimizer, to_channels_last
from ranp.experiments.studies._studies import Variant
from ranp.experiments.studies.results import Results, write_results
from ranp.experiments.studies.running import StudyRequest
from ranp.progress import Progress

REPEATS, LIMIT_SECONDS = 20, 300.0
LARGEST_BATCH = 4096
"""Upper limit of the search for the largest batch."""
SEED = 0
"""Seed of the runs whose networks are measured."""


@dataclass(frozen=True, eq=False)
class Workload:
    """The networks of a task with their initial weights, on the device, and what a training step needs.

    The batch, inputs and targets, is on the CPU.
    """

    models: dict[str, nn.Module]
    batch: tuple[Tensor, Tensor]
    loss_fn: Objective
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    device: torch.device

    @property
    def batch_size(self) -> int:
        """Number of samples in the batch of the recipe."""
        return len(self.batch[0])

    def batch_of(self, size: int) -> tuple[Tensor, Tensor]:
        """A batch of that size, on the device; the samples are repeated as often as needed."""
        rows = torch.arange(size) % self.batch_size
        return self.batch[0][rows].to(self.device), self.batch[1][rows].to(self.device)

    def peak(self, name: str, size: int) -> int | None:
        """Peak memory of a network's training step in bytes, the batch included; None if memory runs out."""
        batch = self.batch_of(size)
        try:
            peak = peak_step_bytes({name: self.models[name]}, batch, self.loss_fn, self.make_optimizer)[name]
        except torch.OutOfMemoryError:
            return None
        # The batch is in memory before the measurement begins.
        return peak + sum(part.nbytes for part in batch)


def measure_study(request: StudyRequest, results: Results, *, progress: Progress) -> None:
    """Measure the pruned networks as the study asks for, and write the results with their environment.

    For a study that trains, time and peak memory of a training step: the networks take turns, so that other load on the
    machine affects all of them alike; the machine should be idle all the same. For one that compares batches, the
    largest batch of each network in the memory that the first one needs for the batch of its recipe.

    Raises:
        InputError: There are no pruned networks.
    """
    measures = {"measured": _steps} if request.study.trains else {}
    measures |= {"batches": _batches} if request.study.batches else {}
    for task in request.study.tasks:
        work = workload(request, task, progress)
        for part, measure in measures.items():
            results[part][task] = {
                "hardware": hardware(work.device),
                "versions": versions(("ranp", "torch")),
                "seed": SEED,
                "batch": work.batch_size,
                **measure(work, progress),
            }
            write_results(request.out, results)


def measure_steps(work: Workload, progress: Progress, *, repeats: int, limit_seconds: float) -> dict[str, Any]:
    """`step_seconds` and `peak_bytes` of a training step of each network; see `ranp.costs.measure`."""
    step = (work.models, work.batch_of(work.batch_size), work.loss_fn, work.make_optimizer)
    progress("measure steps", 0, 2)
    seconds = step_seconds(*step, repeats=repeats, limit_seconds=limit_seconds)
    progress("measure steps", 1, 2)
    peaks = peak_step_bytes(*step)
    progress("measure steps", 2, 2)
    return {name: {"step_seconds": seconds[name], "peak_bytes": peaks[name]} for name in work.models}


def _steps(work: Workload, progress: Progress) -> dict[str, Any]:
    return {"variants": measure_steps(work, progress, repeats=REPEATS, limit_seconds=LIMIT_SECONDS)}


def _batches(work: Workload, progress: Progress) -> dict[str, Any]:
    baseline = next(iter(work.models))
    limit = work.peak(baseline, work.batch_size)
    assert limit is not None
    variants: dict[str, Any] = {}
    for done, name in enumerate(work.models):
        progress("search the largest batch", done, len(work.models))
        variants[name] = _largest_batch(work, name, limit, {work.batch_size: limit} if name == baseline else {})
    return {"limit_bytes": limit, "variants": variants}


def _largest_batch(work: Workload, name: str, limit: int, peaks: dict[int, int | None]) -> dict[str, Any]:
    """The largest batch within a limit in bytes, all peaks that were measured or known before, and the throughput."""

    def fits(size: int) -> bool:
        if size not in peaks:
            peaks[size] = work.peak(name, size)
        peak = peaks[size]
        return peak is not None and peak <= limit

    throughput = None
    if largest := largest_within(fits, work.batch_size):
        step = ({name: work.models[name]}, work.batch_of(largest), work.loss_fn, work.make_optimizer)
        throughput = largest / step_seconds(*step, repeats=5, limit_seconds=60)[name]
    known = {str(size): peak for size, peak in sorted(peaks.items())}
    return {"peaks": known, "largest": largest, "samples_per_second": throughput}


def largest_within(fits: Callable[[int], bool], first: int) -> int:
    """The largest batch that fits, at most `LARGEST_BATCH`: doubles `first` until it does not fit, then bisects.

    Example:
        >>> largest_within(lambda batch: 100 + 33 * batch <= 1000, first=2)
        27
    """
    low, high = 0, first
    while high <= LARGEST_BATCH and fits(high):
        low, high = high, 2 * high
    while high - low > 1 and high <= LARGEST_BATCH:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def workload(request: StudyRequest, task: str, progress: Progress) -> Workload:
    """The pruned networks of a task, and what their training steps need; an InputError if there are none."""
    base = request.base_recipe(task)
    bundle = base.data_set().open(request.data[task], progress=progress)
    device = make_fabric(base.training.precision).device
    models = {
        variant.label: _model(request, variant, bundle).to(device)
        for variant in request.study.variants_of(task)
        if request.folder(variant.label, SEED).plan.exists()
    }
    if not models:
        problem = f"there is no run of seed {SEED} in {request.out}, and only networks can be measured"
        raise InputError("--measure", problem, hint="run the study first")
    sampler = ResumableSampler(sample_count(bundle.train), base.training.batch, seed=base.seed, start=0, stop=1)
    inputs, targets = next(iter(resumable_loader(bundle.train, sampler, workers=0, pin=False)))
    loss_fn = objective(base.training.loss, bundle.ignore_index)
    return Workload(models, (inputs, targets), loss_fn, partial(_optimizer, base.training), device)


class _InBFloat16(nn.Module):
    """A model in mixed precision, as Fabric trains it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs: Tensor = self.model(inputs)
        return outputs.float()


def _model(request: StudyRequest, variant: Variant, bundle: DataBundle) -> nn.Module:
    recipe = request.recipe_of(variant, SEED)
    model = ranp.load(request.folder(variant.label, SEED).plan, full_network(recipe, bundle))
    to_channels_last(recipe.training, model)
    return _InBFloat16(model) if fabric_precision(recipe.training.precision) == "bf16-mixed" else model


# Defined in this module, so that the process that measures memory imports the module when it unpickles the optimizer,
# before it unpickles the model and starts to count.
def _optimizer(training: TrainingFields, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return make_optimizer(training, parameters)
