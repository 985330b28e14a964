"""Random weights, and whether a network can be trained with them."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from helpers.masking import restored


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model in float64 whose parameters and statistics are random, and keep signals at a moderate size."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            fan = max(1, parameter[0].numel()) if parameter.ndim > 1 else 0
            parameter.copy_(noise(parameter) * fan**-0.5 if fan else 1 + 0.3 * noise(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * noise(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(noise(buffer).abs() + 0.5)
    return model


def loss(outputs: Any, targets: Any = None) -> Tensor:
    """A scalar that depends on all outputs."""
    found = [tensor for tensor in tensors_of(outputs) if tensor.is_floating_point()]
    return torch.stack([(tensor - 0.5).square().mean() for tensor in found]).sum()


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in lists, tuples, dicts and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
    elif hasattr(value, "__dict__"):
        yield from tensors_of(vars(value))


def call(model: nn.Module, inputs: Any) -> Any:
    """Run a model on a tensor, a tuple (positional) or a dict (keyword arguments)."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def require_trainable(model: nn.Module, inputs: Any) -> None:
    """Raise an error unless a model runs in eval mode and its loss has finite gradients in training mode."""
    state = random.getstate()
    try:
        with restored(model), torch.no_grad():
            if not torch.isfinite(loss(call(model.eval(), inputs))):
                raise ValueError("the outputs are not finite")
        with restored(model):
            for parameter in model.parameters():
                parameter.requires_grad_(True)
            loss(call(model.train(), inputs)).backward()
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            if not all(torch.isfinite(gradient).all() for gradient in gradients):
                raise ValueError("a gradient is not finite")
    finally:
        random.setstate(state)
        model.zero_grad()
