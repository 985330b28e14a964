"""From batches to losses, for all estimators of importance, with the model left as it was."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ranp.errors import InputError, RanpError
from ranp.graph import ChannelGraph
from ranp.module_utils import call_model, preserve_rng, preserve_state
from ranp.progress import Progress

Step: TypeAlias = Callable[[nn.Module, Any], Tensor]
"""From a model and a batch to a loss."""


def as_step(loss_fn: Callable[[Any, Any], Any] | None) -> Step:
    """The usual step: call the model on the inputs, and the loss on its outputs and the targets."""
    if loss_fn is None:
        raise InputError("loss_fn", got="None", expected="a function of (outputs, targets)", hint="or give step=")

    def step(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            hint = "for other batches give step=, a function of (model, batch) that returns the loss"
            raise InputError("batch", got=_describe(batch), expected="a pair (inputs, targets)", hint=hint)
        inputs, targets = batch
        loss: Tensor = loss_fn(call_model(model, inputs), targets)
        return loss

    return step


@contextmanager
def prepared(model: nn.Module, graph: ChannelGraph, trained: set[str], seed: int) -> Iterator[None]:
    """A model ready to be scored: training mode, layer biases at zero, gradients only of the `trained` parameters.

    All changes to the model and to the random number generators are undone, also after an error.
    """
    parameters = dict(model.named_parameters())
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters.values()]
    biases = [parameters[layer.bias] for layer in graph.layers if layer.bias in parameters]
    values = [bias.detach().clone() for bias in biases]
    with preserve_state(model), preserve_rng(model), torch.enable_grad():
        torch.manual_seed(seed)
        try:
            model.train()
            for name, parameter in parameters.items():
                parameter.requires_grad_(name in trained)
                parameter.grad = None
            for bias in biases:
                bias.detach().zero_()
            yield
        finally:
            for parameter, requires_grad, gradient in before:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            for bias, value in zip(biases, values, strict=True):
                bias.detach().copy_(value)


def losses(
    model: nn.Module, batches: Iterable[Any], step: Step, check_forward: Callable[[], None], progress: Progress | None
) -> Iterator[Tensor]:
    """The loss of every batch, moved to the model's device and checked.

    Raises:
        InputError: No batches; a loss that is no finite scalar or needs no gradient; a forward or loss that fails.
    """
    if not isinstance(batches, Iterable):
        raise InputError("batches", got=type(batches).__name__, expected="an iterable of (inputs, targets)")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    total = len(batches) if isinstance(batches, Sized) else 0
    done = 0
    for done, batch in enumerate(batches, 1):
        loss = _run(step, model, _move(batch, device), done - 1)
        check_forward()
        yield _checked(loss, done - 1)
        if progress is not None:
            progress("scoring", done, total)
    if not done:
        raise InputError("batches", got="none", expected="at least one batch", hint="an iterator can be used only once")


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _move(item, device) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_move(item, device) for item in value)
    return value


def _run(step: Step, model: nn.Module, batch: Any, index: int) -> Any:
    try:
        return step(model, batch)
    except RanpError:
        raise
    except Exception as error:
        problem = f"the model or the loss raised {type(error).__name__}: {error}; the batch was {_describe(batch)}"
        hint = "compare its shapes with example_inputs and with what the loss expects"
        raise InputError(f"batch {index}", problem, hint=hint) from error


def _checked(loss: Any, index: int) -> Tensor:
    where = f"loss of batch {index}"
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        hint = "reduce it by a mean or a sum"
        raise InputError(where, got=_describe(loss), expected="a tensor with one element", hint=hint)
    if not loss.requires_grad:
        hint = "compute it without torch.no_grad(), .detach() or .item()"
        raise InputError(where, "it does not depend on the model's weights", hint=hint)
    if not math.isfinite(value := float(loss.detach())):
        hint = "check the data for NaN and the model's initial weights"
        raise InputError(where, got=str(value), expected="a finite number", hint=hint)
    return loss.reshape(())


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of [{', '.join(_describe(item) for item in value[:4])}]"
    if isinstance(value, Mapping):
        return f"dict of {{{', '.join(f'{key}: {_describe(item)}' for key, item in list(value.items())[:4])}}}"
    return type(value).__name__
