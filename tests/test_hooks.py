"""Hooks of the caller's: those that act outside of the model do not run on copies of it."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

import ranp
from helpers.networks import image
from helpers.oracles import random_plan

X = image(2, 3, 7, 7)()


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))


class Doubled(nn.Module):
    """Has a hook of its own, which is a method."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 2
        self.register_forward_hook(self._double)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def _double(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        assert module is self
        return output * self.factor


def test_hooks_that_are_functions_run_on_no_copy() -> None:
    seen: list[str] = []

    def note(name: str, *_: Any) -> None:
        seen.append(name)

    model = network()
    model[0].register_forward_hook(lambda *_: seen.append("forward"))
    model[0].register_forward_pre_hook(lambda module, args, kwargs: seen.append("before"), with_kwargs=True)
    model[2].register_full_backward_hook(lambda *_: seen.append("backward"))
    model[2].register_forward_hook(partial(note, "partial"), always_call=True)
    graph = ranp.trace(model, X)
    plan = random_plan(graph, 0, 0.5)
    assert ranp.verify(model, plan, X).status == "exact"
    small = ranp.apply(model, plan)
    assert seen == []
    small(X).sum().backward()
    assert seen == ["before", "forward", "partial", "backward"]
    seen.clear()
    model(X).sum().backward()
    assert seen == ["before", "forward", "partial", "backward"]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_hooks_that_belong_to_the_model_run() -> None:
    model = network()
    model[1] = Doubled()
    model[2] = weight_norm(model[2])
    graph = ranp.trace(model, X)
    assert "mul" in {entry.operator for entry in graph.costs.outputs}
    plan = random_plan(graph, 0, 0.5)
    assert ranp.verify(model, plan, X).status == "exact"
    small = ranp.apply(model, plan)
    small[1].factor = 0
    assert torch.equal(small(X), small[2].bias.view(1, 2, 1, 1).expand(2, 2, 5, 5))
    assert not torch.equal(model(X), model[2].bias.view(1, 2, 1, 1).expand(2, 2, 5, 5))
