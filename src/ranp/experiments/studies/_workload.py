"""The networks of a study as they begin to train, and a batch to measure their steps with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import ranp
from ranp.environment import hardware, versions
from ranp.errors import InputError
from ranp.experiments.data import DataBundle, ResumableSampler, resumable_loader, sample_count
from ranp.experiments.losses import Objective, objective
from ranp.experiments.recipes import Recipe, Training
from ranp.experiments.runs._devices import fabric_precision, make_fabric
from ranp.experiments.runs._loop import make_optimizer, to_channels_last
from ranp.experiments.runs._pruning import network_of
from ranp.experiments.studies._request import Request
from ranp.experiments.studies._study import Variant
from ranp.progress import Progress

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass(frozen=True, eq=False)
class Workload:
    """A task's networks and what their steps consist of.

    Attributes:
        models: The network of each variant with its initial weights, on the device.
        batch: Inputs and targets, on the CPU.
        loss_fn: Of the recipe.
        make_optimizer: Of the recipe.
        device: To measure on.
        seed: Of the runs that the networks come from.
    """

    models: dict[str, nn.Module]
    batch: tuple[Tensor, Tensor]
    loss_fn: Objective
    make_optimizer: MakeOptimizer
    device: torch.device
    seed: int

    def batch_of(self, count: int) -> tuple[Tensor, Tensor]:
        """A batch of that many samples, on the device: those of the recipe's, over and over."""
        rows = torch.arange(count) % len(self.batch[0])
        return self.batch[0][rows].to(self.device), self.batch[1][rows].to(self.device)

    def circumstances(self) -> dict[str, Any]:
        """What is to be known of all that is measured with it."""
        return {
            "hardware": hardware(self.device),
            "versions": versions(("ranp", "torch")),
            "seed": self.seed,
            "batch": len(self.batch[0]),
        }


class _InBFloat16(nn.Module):
    """A model that computes in mixed precision, as Fabric makes it do in training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs: Tensor = self.model(inputs)
        return outputs.float()


def workload(request: Request, task: str, seed: int, tell: Progress) -> Workload:
    """What to measure of a task: all variants that have been pruned.

    Raises:
        InputError: None of them has.
    """
    base = request.base(task)
    bundle = base.data_set().open(request.data[task], progress=tell)
    device = make_fabric(base.training.precision).device
    models = {
        variant.label: _model(request, variant, seed, bundle).to(device)
        for variant in request.study.variants_of(task)
        if request.folder(variant.label, seed).plan.exists()
    }
    if not models:
        raise InputError(
            "--measure",
            got=f"no run of seed {seed} in {request.out}",
            expected="networks that have been pruned",
            hint="run the study first; figures alone cannot be measured",
        )
    return Workload(
        models,
        _first_batch(base, bundle),
        objective(base.training.loss, bundle.ignore_index),
        partial(_optimizer, base.training),
        device,
        seed,
    )


def _model(request: Request, variant: Variant, seed: int, bundle: DataBundle) -> nn.Module:
    recipe = request.recipe_of(variant, seed)
    model = ranp.load(request.folder(variant.label, seed).plan, network_of(recipe, bundle))
    to_channels_last(recipe.training, model)
    return _InBFloat16(model) if fabric_precision(recipe.training.precision) == "bf16-mixed" else model


# Defined here, so that a process that unpacks it has loaded this module before it unpacks a model and counts bytes.
def _optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return make_optimizer(training, parameters)


def _first_batch(recipe: Recipe, bundle: DataBundle) -> tuple[Tensor, Tensor]:
    stream = ResumableSampler(sample_count(bundle.train), recipe.training.batch, seed=recipe.seed, start=0, stop=1)
    inputs, targets = next(iter(resumable_loader(bundle.train, stream, workers=0, pin=False)))
    return inputs, targets
