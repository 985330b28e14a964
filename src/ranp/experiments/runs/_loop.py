"""The training of a run: a loop that can stop after any step and go on as if it had not.

All that is random in a step follows from the seed and the step's number: which samples it sees, how they are varied,
what dropout drops. So nothing of a random state has to be kept.
"""

import csv
import io
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format, convert_conv3d_weight_memory_format
from torch.optim import Optimizer

from ranp.errors import InputError
from ranp.experiments.data import DataBundle, ResumableSampler, derive_seed, resumable_loader, sample_count
from ranp.experiments.losses import SCHEDULES, objective
from ranp.experiments.recipes import Recipe, Training
from ranp.experiments.runs._folder import RunFolder
from ranp.experiments.runs._progress import Progress, read_best, read_checkpoint, write_best, write_checkpoint
from ranp.experiments.runs._validation import validate
from ranp.files import write_bytes
from ranp.progress import Progress as Tell

LOG_EVERY = 10


@dataclass(frozen=True, eq=False)
class Trial:
    """What a training needs.

    Attributes:
        folder: Where it is kept.
        recipe: What to do.
        bundle: The data set.
        fabric: Device, precision, processes, loggers.
        model: Trained in place, on the device.
        tell: Told of progress.
    """

    folder: RunFolder
    recipe: Recipe
    bundle: DataBundle
    fabric: Any
    model: nn.Module
    tell: Tell

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all processes together see every sample once."""
        batch: int = self.recipe.training.batch * self.fabric.world_size
        return -(-sample_count(self.bundle.train) // batch)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        training = self.recipe.training
        if training.steps is not None:
            return training.steps
        assert training.epochs is not None
        return int(training.epochs) * self.steps_per_epoch

    def is_over(self, progress: Progress) -> bool:
        """Whether all steps are done, or validation has not improved for too long."""
        patience = self.recipe.training.patience
        tired = patience is not None and progress.validations_since_best() >= patience
        return tired or progress.step >= self.steps


def fit(trial: Trial) -> Progress:
    """Train from the last checkpoint, or from the start, to the end.

    Returns:
        How it went.

    Raises:
        InputError: The loss is not finite.
    """
    training, fabric = trial.recipe.training, trial.fabric
    to_channels_last(training, trial.model)
    optimizer: Any = make_optimizer(training, trial.model.parameters())
    model, optimizer = fabric.setup(trial.model, optimizer)
    progress = _resumed(trial, optimizer)
    batches = iter(_loader(trial, progress.step))
    loss_fn = objective(training.loss, trial.bundle.ignore_index)
    trial.model.train()
    while not trial.is_over(progress):
        begin = time.perf_counter()
        inputs, targets = (part.to(fabric.device, non_blocking=True) for part in next(batches))
        fetched = time.perf_counter()
        torch.manual_seed(derive_seed(trial.recipe.seed, "step", progress.step, fabric.global_rank))
        rate = training.rate * SCHEDULES[training.schedule](progress.step / trial.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = loss_fn(model(inputs), targets)
        fabric.backward(loss)
        optimizer.step()
        # Reading the number waits for the device, so the clock sees all the work.
        value = float(loss.detach())
        progress.add_step(fetched - begin, time.perf_counter() - fetched)
        _after_step(trial, optimizer, progress, value, rate)
    return progress


def to_channels_last(training: Training, model: nn.Module) -> None:
    """Put the weights of convolutions in the order in memory that the recipe asks for."""
    if training.channels_last:
        convert_conv2d_weight_memory_format(model, torch.channels_last)
        convert_conv3d_weight_memory_format(model, torch.channels_last_3d)


def make_optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The recipe's optimizer."""
    kinds: dict[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    more = {"momentum": 0.9} if training.optimizer == "sgd" else {}
    made: Optimizer = kinds[training.optimizer](
        parameters, lr=training.rate, weight_decay=training.weight_decay, **more
    )
    return made


def _resumed(trial: Trial, optimizer: Any) -> Progress:
    folder = trial.folder
    if not folder.last.exists():
        return Progress()
    progress = read_checkpoint(folder.last, trial.model, optimizer)
    if folder.best.exists():
        # It is written before the checkpoint, so it may be one validation ahead.
        progress.best = read_best(folder.best)
    return progress


def _loader(trial: Trial, start: int) -> Any:
    training, fabric = trial.recipe.training, trial.fabric
    stream = ResumableSampler(
        sample_count(trial.bundle.train),
        training.batch,
        seed=derive_seed(trial.recipe.seed, "training"),
        start=start,
        stop=trial.steps,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    pin = fabric.device.type == "cuda"
    return resumable_loader(trial.bundle.train, stream, workers=training.workers, pin=pin)


def _after_step(trial: Trial, optimizer: Any, progress: Progress, loss: float, rate: float) -> None:
    """Log, validate and write a checkpoint where it is time to."""
    training, step = trial.recipe.training, progress.step
    if not math.isfinite(loss):
        raise InputError(
            "training", got=f"a loss of {loss} at step {step}", expected="a finite loss", hint="lower training.rate"
        )
    trial.tell("training", step, trial.steps)
    if step % LOG_EVERY == 0:
        trial.fabric.log_dict({"loss": loss, "rate": rate}, step)
    if step % (training.validate_every or trial.steps_per_epoch) == 0 or step == trial.steps:
        _validate(trial, progress, loss, rate)
    elif step % training.checkpoint_every:
        return
    if trial.fabric.is_global_zero:
        write_checkpoint(trial.folder.last, trial.model, optimizer, progress)
    trial.fabric.barrier()


def _validate(trial: Trial, progress: Progress, loss: float, rate: float) -> None:
    training, folder = trial.recipe.training, trial.folder
    figures = validate(
        trial.fabric,
        trial.model,
        trial.bundle,
        batch=training.batch,
        workers=training.workers,
        tell=trial.tell,
    )
    row = {"step": progress.step, "seconds": progress.seconds, "loss": loss, "rate": rate, **figures}
    better = progress.add_row(row, trial.bundle.primary_metric)
    if not trial.fabric.is_global_zero:
        return
    if better:
        write_best(folder.best, trial.model, row)
    write_bytes(folder.curve, _table(progress))
    trial.fabric.log_dict({name: value for name, value in figures.items() if value is not None}, progress.step)


def _table(progress: Progress) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in progress.curve for name in row)))
    writer.writeheader()
    writer.writerows(progress.curve)
    return text.getvalue().encode()
