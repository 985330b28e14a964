"""Bad input is refused with the place, what came, what was expected and what to do; nothing has changed."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ranp
from helpers.unchanged import assert_unchanged
from ranp.errors import BudgetError, InputError, RanpError, TraceError


def nan_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.sum() * math.nan


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise ArithmeticError("not today")


X, Y = torch.zeros(2, 3, 9, 9), torch.zeros(2, 2, 5, 5)
BAD: dict[str, tuple[dict[str, Any], type[RanpError], str]] = {
    "an empty loader": (
        {"batches": []},
        InputError,
        "^batches: got none; expected at least one batch; .*used only once",
    ),
    "a loader that is none": ({"batches": 5}, InputError, "^batches: got 5; expected an iterable"),
    "batches that are no pairs": (
        {"batches": [X]},
        InputError,
        r"^batch: got a tensor of shape \(2, 3, 9, 9\); expected a pair \(inputs, targets\); .* give step=",
    ),
    "a batch with other channels": (
        {"batches": [(X, Y), (torch.zeros(2, 4, 9, 9), Y)]},
        InputError,
        r"^batch 1: the model or the loss raised RuntimeError: .*; the batch was .*\(2, 4, 9, 9\).*; compare",
    ),
    "targets of another shape": (
        {
            "batches": [(X, torch.zeros(2, 2, 4, 4))],
            "loss_fn": lambda outputs, targets: (outputs - targets).abs().mean(),
        },
        InputError,
        r"^batch 0: the model or the loss raised RuntimeError.*\(2, 2, 4, 4\).*; compare its shapes with",
    ),
    "no targets": (
        {"batches": [(X, None)]},
        InputError,
        "^batch 0: the model or the loss raised AttributeError.*NoneType.*; compare its shapes",
    ),
    "a loss per element": (
        {"loss_fn": lambda outputs, targets: (outputs - targets) ** 2},
        InputError,
        r"^loss of batch 0: got a tensor of shape \(2, 2, 5, 5\); expected a tensor with one element; reduce it",
    ),
    "a loss that is a number": (
        {"loss_fn": lambda outputs, targets: float(outputs.detach().sum())},
        InputError,
        r"^loss of batch 0: got -?\d.*; expected a tensor with one element",
    ),
    "a loss that is NaN": (
        {"loss_fn": nan_loss},
        InputError,
        "^loss of batch 0: got nan; expected a finite number; check",
    ),
    "a loss that is infinite": (
        {"loss_fn": lambda outputs, targets: outputs.sum() - math.inf},
        InputError,
        "^loss of batch 0: got -inf; expected a finite number; check the data",
    ),
    "a loss that needs no gradient": (
        {"loss_fn": lambda outputs, targets: outputs.detach().sum()},
        InputError,
        "^loss of batch 0: it does not depend on the model's weights; compute it without",
    ),
    "a complex loss": (
        {"loss_fn": lambda outputs, targets: outputs.sum() * 1j},
        InputError,
        "^loss of batch 0: got a complex number; expected a real one; take its absolute value or its real part",
    ),
    "a loss whose gradient is zero": (
        {"loss_fn": lambda outputs, targets: outputs.sign().mean()},
        InputError,
        "^loss: its gradient is zero for every neuron that may be removed, .*; check that the loss depends on the mod",
    ),
    "a loss whose gradient is infinite": (
        {"loss_fn": lambda outputs, targets: (outputs - outputs.detach()).square().mean().sqrt()},
        InputError,
        r"^gradients of [03]: they contain NaN or infinity; check the loss for roots and quotients of zero",
    ),
    "a loss that cannot be differentiated": (
        {"loss_fn": lambda outputs, targets: NoBackward.apply(outputs).sum()},
        InputError,
        "^loss: the backward pass raised ArithmeticError: not today; check that loss.backward",
    ),
    "no loss": ({"loss_fn": None}, InputError, "^loss_fn: got None; expected a function of .*; or give step="),
    "no batches": ({"batches": None}, InputError, "^batches: got none; expected at least one batch"),
    "a budget that is a number": (
        {"budget": 0.5},
        InputError,
        r"^budget: got 0\.5; expected a Budget; for example ranp\.Budget\(macs=0\.25\)",
    ),
    "a seed that is too large": (
        {"seed": 2**70},
        InputError,
        r"^seed: got an integer of 71 bits; expected an integer from 0 to 2\*\*64 - 1",
    ),
    "a resource weight that is text": (
        {"resource_weight": "a"},
        InputError,
        "^resource_weight: got 'a'; expected a finite number of at least 0",
    ),
    "a process group that is none": (
        {"process_group": 0},
        InputError,
        r"^process_group: got 0; expected a torch\.distributed\.ProcessGroup .*; for all processes give torch\.dist",
    ),
    "a budget below the minimum": (
        {"budget": ranp.Budget(macs=0.001)},
        BudgetError,
        r"^allocate: got macs=0.001; expected a feasible budget: macs >= 0\.\d+; raise the budget, or lower min_width",
    ),
    "an unknown criterion": (
        {"criterion": "rapn-f"},
        InputError,
        "^criterion: 'rapn-f' is unknown; did you mean 'ranp-f'.*known: constant",
    ),
    "an unknown reading": (
        {"importance": "neurons"},
        InputError,
        "^importance: 'neurons' is unknown; did you mean 'neuron'",
    ),
    "an unknown initialization": (
        {"weights": "orthogonl"},
        InputError,
        "^weights: 'orthogonl' is unknown; did you mean 'orthogonal'",
    ),
    "a minimum width of 0": ({"min_width": 0}, InputError, "^min_width: got 0; expected an integer of at least 1"),
    "example inputs of the wrong shape": (
        {"example_inputs": torch.zeros(2, 4, 9, 9)},
        TraceError,
        "^forward of 0: fails on the example inputs with RuntimeError: .*channels.*; check the shape",
    ),
    "example inputs of the wrong kind": (
        {"example_inputs": "image"},
        InputError,
        r"^example_inputs: got 'image'; expected a tensor, a tuple \(positional arguments\) or a dict",
    ),
    "a model without layers to prune": (
        {"model": nn.Sequential(nn.Conv2d(3, 2, 5))},
        TraceError,
        "^model: it has no channel that can be removed .*output.*; pruning needs at least one layer between",
    ),
    "a model on the meta device": (
        {"model": nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 3)).to("meta")},
        InputError,
        "^model: got Sequential; expected a model whose weights have values; initialize what was built on the meta",
    ),
    "a model without layers": (
        {"model": nn.ReLU()},
        TraceError,
        "^model: it has no channel.*no convolution or linear layer",
    ),
}


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_explained_and_changes_nothing(what: str, importance: str) -> None:
    changes, kind, message = BAD[what]
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))
    arguments: dict[str, Any] = {
        "model": model,
        "example_inputs": X,
        "batches": [(X, Y)],
        "loss_fn": F.mse_loss,
        "budget": ranp.Budget(macs=0.5),
        "importance": importance,
        **changes,
    }
    model = arguments["model"]

    def act() -> None:
        with pytest.raises(kind, match=message):
            ranp.prune(**arguments)

    if not any(parameter.is_meta for parameter in model.parameters()):
        assert_unchanged(copy.deepcopy(model), act)
        assert_unchanged(model, act)
    else:
        act()


def test_an_impossible_budget_is_refused_before_any_batch_is_read() -> None:
    def untouched() -> Iterator[Any]:
        raise AssertionError("a batch was read")
        yield

    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 3))
    with pytest.raises(BudgetError):
        ranp.prune(model, X, untouched(), F.mse_loss, budget=ranp.Budget(macs=0.001))


def test_only_so_many_errors_are_raised_as_they_are() -> None:
    """Every error of ranp is one that callers can catch as RanpError and as its builtin kind."""
    for kind, builtin in ((InputError, ValueError), (BudgetError, ValueError), (TraceError, RuntimeError)):
        assert issubclass(kind, RanpError)
        assert issubclass(kind, builtin)
