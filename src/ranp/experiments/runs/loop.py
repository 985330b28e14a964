"""The training loop: it can be interrupted after any step and resumed with the same result.

Everything random in a step follows from the seed and the number of the step: which samples it sees, how they are
augmented, what dropout drops. So no random state needs to be stored.
"""

import csv
import io
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ranp.costs import training as costs
from ranp.errors import InputError
from ranp.experiments import recipes
from ranp.experiments.data import DataBundle, derive_seed, sample_count
from ranp.experiments.losses import SCHEDULES, Objective, objective
from ranp.experiments.runs._evaluate import validate
from ranp.experiments.runs._folder import RunFolder
from ranp.experiments.runs._machine import translate_errors
from ranp.experiments.runs._networks import random_batches
from ranp.experiments.runs.state import Row, TrainingState, read_best, read_checkpoint, write_best, write_checkpoint
from ranp.files import write_bytes
from ranp.module_utils import preserve_rng
from ranp.progress import Progress
from ranp.scores import Scores

_LOG_EVERY = 10


@dataclass(eq=False)
class Run:
    """A run whose network is pruned: what training needs, and how far it has come.

    Attributes:
        folder: Its files.
        recipe: What to do.
        bundle: The data set.
        fabric: Device, precision, processes.
        model: Trained in place, on the device.
        pruning: Results of pruning, as in `RunFolder.pruning`.
        scores: What the plan rests on; None if nothing was scored now.
        progress: Progress callback.
        state: How far training has come.
    """

    folder: RunFolder
    recipe: "recipes.Recipe"
    bundle: DataBundle
    fabric: Any
    model: nn.Module
    pruning: dict[str, Any]
    scores: Scores | None
    progress: Progress
    state: TrainingState = field(default_factory=TrainingState)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all processes together see every sample once."""
        batch: int = self.recipe.training.batch * self.fabric.world_size
        return -(-sample_count(self.bundle.train) // batch)

    @property
    def steps(self) -> int | None:
        """Steps of the whole training; None if its length is given in seconds."""
        training = self.recipe.training
        return training.steps if training.epochs is None else training.epochs * self.steps_per_epoch

    @cached_property
    def events(self) -> Any:
        """Writer of events for TensorBoard; those of an interrupted run are dropped from the present step on."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder.logs), purge_step=self.state.step)

    def log(self, values: Mapping[str, float | None]) -> None:
        """Write values of the present step for TensorBoard; only the first process does."""
        for name, value in values.items() if self.fabric.is_global_zero else ():
            if value is not None:
                self.events.add_scalar(name, value, self.state.step)

    def completed(self) -> tuple[float, float]:
        """How much of the training is done, and its length, both in steps or both in seconds."""
        if self.steps is not None:
            return self.state.step, self.steps
        assert self.recipe.training.seconds is not None
        return self.state.seconds, self.recipe.training.seconds

    def is_over(self) -> bool:
        """Whether the training has its full length, or validation has not improved for too long."""
        patience, (done, total) = self.recipe.training.patience, self.completed()
        return done >= total or (patience is not None and self.state.validations_since_best() >= patience)


def fit(run: Run) -> Iterator[Row]:
    """Train from the last checkpoint, or from the start, to the end; yields every validation, after its checkpoint.

    The caller may do other things between two validations; they do not count as training time, and the global random
    state is that of the caller then.

    Raises:
        InputError: The loss is not finite.
        RanpError: Memory or disk are short, or a worker process died.
    """
    training = run.recipe.training
    memory = "lower training.batch, the size of the data, or pruning.budget"
    disk = f"the last checkpoint in {run.folder.path} is intact: free disk space and resume with --resume"
    with translate_errors("training", memory=memory, disk=disk):
        to_channels_last(training, run.model)
        optimizer: Any = make_optimizer(training, run.model.parameters())
        model, optimizer = run.fabric.setup(run.model, optimizer)
        if run.folder.last.exists():
            run.state = read_checkpoint(run.folder.last, run.model, optimizer)
            if run.folder.best.exists():
                # It is written before the checkpoint, so it may be one validation ahead.
                run.state.best = read_best(run.folder.best)
        run.model.train()
        loss_fn = objective(training.loss, run.bundle.ignore_index)
        with preserve_rng(run.model):
            start, stop = run.state.step, sys.maxsize if run.steps is None else run.steps
            sources = run.recipe, run.bundle, run.fabric
            batches = iter(random_batches(*sources, "training", batch=training.batch, start=start, stop=stop))
        while not run.is_over():
            row = None
            with preserve_rng(run.model):
                while row is None:
                    row = _step(run, model, optimizer, batches, loss_fn)
            yield row


def to_channels_last(training: "recipes.TrainingFields", model: nn.Module) -> None:
    """Put the weights of convolutions into the memory format of the recipe."""
    if training.channels_last:
        costs.to_channels_last(model)


def make_optimizer(training: "recipes.TrainingFields", parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The recipe's optimizer."""
    return costs.OPTIMIZERS[training.optimizer](parameters, lr=training.rate, weight_decay=training.weight_decay)


def _step(run: Run, model: nn.Module, optimizer: Any, batches: Iterator[Any], loss_fn: Objective) -> Row | None:
    """One training step; returns the validation if there was one after it."""
    training, fabric, state = run.recipe.training, run.fabric, run.state
    before, total = run.completed()
    begin = time.perf_counter()
    inputs, targets = (part.to(fabric.device, non_blocking=True) for part in next(batches))
    fetched = time.perf_counter()
    torch.manual_seed(derive_seed(run.recipe.seed, "step", state.step, fabric.global_rank))
    rate = training.rate * SCHEDULES[training.schedule](before / total)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss: Tensor = loss_fn(model(inputs), targets)
    fabric.backward(loss)
    optimizer.step()
    # Reading the value waits for the device, so that the clock sees all the work.
    value = float(loss.detach())
    state.add_step(fetched - begin, time.perf_counter() - fetched)
    if run.steps is None and fabric.world_size > 1:
        # All processes must stop after the same step.
        state.seconds = fabric.broadcast(state.seconds)
    return _after_step(run, optimizer, before, value, rate)


def _after_step(run: Run, optimizer: Any, before: float, loss: float, rate: float) -> Row | None:
    """Report progress, log, validate and write a checkpoint where one of them is due."""
    training, step = run.recipe.training, run.state.step
    if not math.isfinite(loss):
        raise InputError("training", f"the loss is {loss} at step {step}", hint="lower training.rate")
    done, total = run.completed()
    unit = 1 if run.steps is not None else 1000  # Progress is reported in whole numbers: milliseconds.
    run.progress("training", round(unit * min(done, total)), round(unit * total))
    if step % _LOG_EVERY == 0:
        run.log({"loss": loss, "rate": rate})
    row = _validate(run, loss, rate) if _validation_is_due(run, before) else None
    if row is not None or step % training.checkpoint_every == 0:
        if run.fabric.is_global_zero:
            write_checkpoint(run.folder.last, run.model, optimizer, run.state)
        run.fabric.barrier()
    return row


def _validation_is_due(run: Run, before: float) -> bool:
    training, (done, total) = run.recipe.training, run.completed()
    if done >= total:
        return True
    if training.validations is not None:
        return done * training.validations // total > before * training.validations // total
    return run.state.step % (training.validate_every or run.steps_per_epoch) == 0


def _validate(run: Run, loss: float, rate: float) -> Row:
    training, folder, state = run.recipe.training, run.folder, run.state
    batch, workers = training.batch, training.workers
    metrics = validate(run.fabric, run.model, run.bundle, batch=batch, workers=workers, progress=run.progress)
    row = {"step": state.step, "seconds": state.seconds, "loss": loss, "rate": rate, **metrics}
    better = state.add_row(row, run.bundle.primary_metric)
    run.log(metrics)
    if run.fabric.is_global_zero:
        if better:
            write_best(folder.best, run.model, row)
        write_bytes(folder.curve, _csv(state.curve))
    return row


def _csv(curve: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in curve for name in row)))
    writer.writeheader()
    writer.writerows(curve)
    return text.getvalue().encode()
