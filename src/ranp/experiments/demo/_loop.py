"""The training loop: a generator, so that its caller decides what happens between two steps."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ranp.errors import InputError
from ranp.experiments.losses import warm_up_then_decay

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """What one training step leaves behind.

    Attributes:
        index: 1 for the first step.
        loss: The loss of its batch, before the update.
        seconds: Time spent in this step and all before it; time between steps does not count.
    """

    index: int
    loss: float
    seconds: float


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    loss_fn: Loss,
    optimizer: Optimizer,
    *,
    seconds: float = math.inf,
    steps: float = math.inf,
    schedule: Callable[[float], float] = warm_up_then_decay,
) -> Iterator[Step]:
    """Train until the time or the steps are used up, or the batches end; yields after every step.

    Args:
        model: Trained in place, on the device it is on.
        batches: Inputs and targets, `(N, ...)` each.
        loss_fn: Scalar loss of outputs and targets.
        optimizer: Over the model's parameters; its learning rates are the peak ones.
        seconds: Wall time to train for. The last step may overrun it.
        steps: Steps to train for.
        schedule: Factor on the learning rate, of the share of the seconds or steps that is used.

    Yields:
        One `Step` after each update. The clock stands still until the next one is asked for.

    Raises:
        InputError: The loss is not finite.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> data = [(torch.ones(2, 1), torch.ones(2, 1))] * 5
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> loop = train(model, data, nn.functional.mse_loss, optimizer, steps=3)
        >>> [step.index for step in loop]
        [1, 2, 3]
    """
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    device = next(model.parameters()).device
    source = iter(batches)
    index, clock = 0, 0.0
    while clock < seconds and index < steps:
        start = time.perf_counter()
        batch = next(source, None)
        if batch is None:
            return
        factor = schedule(max(clock / seconds, index / steps))
        for group, rate in zip(optimizer.param_groups, peak_rates, strict=True):
            group["lr"] = rate * factor
        loss = _update(model, batch, loss_fn, optimizer, device)
        index += 1
        if not math.isfinite(loss):
            raise InputError(
                "train",
                got=f"a loss of {loss} at step {index}",
                expected="a finite loss",
                hint="lower the rate",
            )
        clock += time.perf_counter() - start
        yield Step(index, loss, clock)


def _update(model: nn.Module, batch: Batch, loss_fn: Loss, optimizer: Optimizer, device: torch.device) -> float:
    inputs, targets = (part.to(device) for part in batch)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    loss = loss_fn(model(inputs), targets)
    loss.backward()
    optimizer.step()
    # Reading the number waits for the device, so the clock sees all the work.
    return float(loss.detach())
