"""A model with everything that could be left behind in it, and a check that nothing is."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

Batches = list[tuple[Tensor, Tensor]]


class Network(nn.Module):
    """A network with everything that scoring and tracing could leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.3)
        self.second = nn.Conv2d(6, 5, 3)
        self.instance = nn.InstanceNorm2d(5, affine=True, track_running_stats=True)
        self.head = nn.Conv2d(5, 2, 1)
        self.register_buffer("steps", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))
        self.cache: Tensor | None = None
        self.fail = False

    def forward(self, x: Tensor) -> Tensor:
        self.steps = self.steps + 1
        self.seen += 1
        if self.cache is None:
            self.cache = torch.ones(1, dtype=x.dtype)
        y = self.dropout(self.norm(self.first(x)).relu())
        if self.fail:
            raise RuntimeError("forward fails")
        return self.head(self.instance(self.second(y)).relu() * self.cache)


def network() -> Network:
    model = Network()
    model.train()
    model.norm.eval()
    model.dropout.train(False)
    model.first.bias.requires_grad_(False)
    model.second.weight.grad = torch.randn(model.second.weight.shape)
    model.head.bias.grad = torch.randn(2)
    return model


def batches(count: int = 2) -> Batches:
    return [(torch.randn(2, 3, 9, 9), torch.randn(2, 2, 5, 5)) for _ in range(count)]


def inputs() -> Tensor:
    return torch.zeros(2, 3, 9, 9)


def hooks(model: nn.Module) -> list[Any]:
    found: list[Any] = []
    for module in model.modules():
        found += [list(value) for name, value in sorted(vars(module).items()) if "_hooks" in name]
    for parameter in model.parameters():
        found.append(list(parameter._backward_hooks or ()))
        found.append(list(getattr(parameter, "_post_accumulate_grad_hooks", None) or ()))
    return found


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that must be the same afterwards; values as bytes, objects by identity."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values = {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {
        "values": values,
        "objects": {name: id(tensor) for name, tensor in tensors.items()},
        "strides": {name: tensor.stride() for name, tensor in tensors.items()},
        "attributes": [sorted((k, id(v)) for k, v in vars(m).items() if k != "training") for m in model.modules()],
        "modes": [module.training for module in model.modules()],
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": {name: (id(grad), grad.numpy().tobytes()) for name, grad in gradients.items()},
        "hooks": hooks(model),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "fast attention": torch.backends.mha.get_fastpath_enabled(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
    }


def assert_unchanged(model: nn.Module, act: Callable[[], object], error: type[BaseException] | None = None) -> None:
    held = [p.grad for p in model.parameters()]  # so that identities stay taken
    before = state_of(model)
    if error is None:
        act()
    else:
        with pytest.raises(error):
            act()
    after = state_of(model)
    for name in before:
        assert after[name] == before[name], name
    del held
