"""The loop that every reading of importance shares: batches in, losses out, and the model left as it was."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ranp.errors import InputError, RanpError
from ranp.graph import ChannelGraph
from ranp.module_utils import call_model, preserve_rng, preserve_state

Step: TypeAlias = Callable[[nn.Module, Any], Tensor]
Progress: TypeAlias = Callable[[str, int, int], None]


def step_of(step: Step | None, loss_fn: Callable[[Any, Any], Any] | None) -> Step:
    """The function from a model and a batch to a loss."""
    if step is not None:
        return step
    if loss_fn is None:
        raise InputError("loss_fn", got="None", expected="a function of (outputs, targets)", hint="or give step=")

    def default(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(
                "batch",
                got=_kind(batch),
                expected="a pair (inputs, targets)",
                hint="for other batches give step=, a function of (model, batch) that returns the loss",
            )
        inputs, targets = batch
        outputs = call_model(model, inputs)
        loss: Tensor = loss_fn(outputs, targets)
        return loss

    return default


def losses(model: nn.Module, batches: Iterable[Any], step: Step, progress: Progress | None) -> Iterator[Tensor]:
    """The loss of every batch, moved to the model's device and checked.

    Raises:
        InputError: No batches; a loss that is no finite scalar or needs no gradient; a forward or loss that fails.
    """
    if not isinstance(batches, Iterable):
        raise InputError("batches", got=type(batches).__name__, expected="an iterable of (inputs, targets)")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    total = len(batches) if isinstance(batches, Sized) else 0
    done = 0
    for index, batch in enumerate(batches):
        yield _checked(_run(step, model, _move(batch, device), index), index)
        done += 1
        if progress is not None:
            progress("scoring", done, total)
    if not done:
        raise InputError("batches", got="none", expected="at least one batch", hint="an iterator can be used only once")


@contextmanager
def prepared(model: nn.Module, graph: ChannelGraph, trained: set[str], seed: int) -> Iterator[None]:
    """A model ready to be scored: training mode, layer biases at zero, gradients only where they are needed.

    Args:
        model: The model; all that is changed is changed back, also after an error.
        graph: Its graph.
        trained: Names of the parameters that need gradients.
        seed: Seed of the random number generators inside.
    """
    parameters = dict(model.named_parameters())
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters.values()]
    biases = [parameters[layer.bias] for layer in graph.layers if layer.bias in parameters]
    kept = [(bias, bias.detach().clone()) for bias in biases]
    with ExitStack() as stack:
        stack.enter_context(preserve_state(model))
        stack.enter_context(preserve_rng(model))
        stack.enter_context(torch.enable_grad())
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
            for parameter, needed, gradient in before:
                parameter.requires_grad_(needed)
                parameter.grad = gradient
            for bias, value in kept:
                bias.detach().copy_(value)


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
        raise InputError(
            f"batch {index}",
            got=f"{type(error).__name__}: {error} on {_kind(batch)}",
            expected="a batch that the model and the loss take",
            hint="compare its shapes with example_inputs and with what the loss expects",
        ) from error


def _checked(loss: Any, index: int) -> Tensor:
    where = f"loss of batch {index}"
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise InputError(
            where, got=_kind(loss), expected="a tensor with one element", hint="reduce it by a mean or a sum"
        )
    if not loss.requires_grad:
        raise InputError(
            where,
            got="a loss that needs no gradient",
            expected="a loss that depends on the model's weights",
            hint="compute it without torch.no_grad(), .detach() or .item()",
        )
    if not math.isfinite(float(loss.detach())):
        raise InputError(
            where,
            got=str(float(loss.detach())),
            expected="a finite number",
            hint="check the data for NaN and the model's initial weights",
        )
    return loss.reshape(())


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of [{', '.join(_kind(item) for item in value[:4])}]"
    if isinstance(value, Mapping):
        return f"dict of {{{', '.join(f'{key}: {_kind(item)}' for key, item in list(value.items())[:4])}}}"
    return type(value).__name__
