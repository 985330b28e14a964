"""`prune` end to end: what it returns, what it refuses, and that the caller's model is left as it was."""

import copy
import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import ranp
import torch
import torch.nn.functional as F
from networks import CASES, image
from oracles import counted_macs, random_plan
from ranp.errors import BudgetError, InputError, RanpError, TraceError, VerificationError
from ranp.scoring import CRITERIA
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


# -- the caller's model ------------------------------------------------------------------------------------------


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
        "attributes": [sorted((k, id(v)) for k, v in vars(m).items() if k != "training") for m in model.modules()],
        "modes": [module.training for module in model.modules()],
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": {name: (id(grad), grad.numpy().tobytes()) for name, grad in gradients.items()},
        "hooks": hooks(model),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002
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


def test_every_step_leaves_the_model_as_it_was(tmp_path: Any) -> None:
    model, data = network(), batches()
    graph = ranp.trace(Network(), inputs())
    scores = ranp.score(Network(), graph, data, F.mse_loss)
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=0.5))
    folder = ranp.save(ranp.apply(model, plan), plan, tmp_path / "it")
    assert_unchanged(model, lambda: ranp.trace(model, inputs()))
    for criterion in CRITERIA:
        for importance in ("parameter", "neuron"):
            assert_unchanged(
                model,
                lambda criterion=criterion, importance=importance: ranp.score(
                    model, graph, data, F.mse_loss, criterion=criterion, importance=importance
                ),
            )
    for weights in ("keep", "glorot", "orthogonal"):
        assert_unchanged(model, lambda weights=weights: ranp.apply(model, plan, weights=weights))
    assert_unchanged(model, lambda: ranp.verify(model, plan, inputs()))
    assert_unchanged(model, lambda: ranp.load(folder, model))
    assert_unchanged(
        model, lambda: ranp.prune(model, inputs(), data, F.mse_loss, budget=ranp.Budget(macs=0.5), weights="glorot")
    )


class Interrupt(BaseException):
    """What no library catches."""


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_scoring_that_fails_leaves_the_model_as_it_was(importance: Any) -> None:
    model, data = network(), batches(3)
    graph = ranp.trace(model, inputs())

    def failing_at(count: int, error: BaseException) -> Callable[[Tensor, Tensor], Tensor]:
        calls = iter(range(100))

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            if next(calls) == count:
                raise error
            return F.mse_loss(outputs, targets)

        return loss

    def interrupted() -> Iterator[tuple[Tensor, Tensor]]:
        yield data[0]
        raise Interrupt

    def stop(*_: object) -> None:
        raise Interrupt

    def score(found: Any, loss: Any, **more: Any) -> Callable[[], object]:
        return lambda: ranp.score(model, graph, found, loss, importance=importance, **more)

    assert_unchanged(model, score(data, failing_at(0, RuntimeError("first"))), InputError)
    assert_unchanged(model, score(data, failing_at(2, RuntimeError("last"))), InputError)
    assert_unchanged(model, score(data, failing_at(1, Interrupt())), Interrupt)
    assert_unchanged(model, score(data, lambda outputs, targets: outputs.sum() * math.nan), InputError)
    assert_unchanged(model, score(interrupted(), F.mse_loss), Interrupt)
    assert_unchanged(model, score(data, F.mse_loss, progress=stop), Interrupt)
    assert_unchanged(model, score([*data, (torch.zeros(1), data[0][1])], F.mse_loss), InputError)


def test_other_steps_that_fail_leave_the_model_as_it_was() -> None:
    model, data = network(), batches()
    budget = ranp.Budget(macs=0.5)
    graph = ranp.trace(model, inputs())
    plan = random_plan(graph, 0, 0.3)
    index, entry = next((i, e) for i, e in enumerate(plan.slices) if e.reads)
    other = next(place for place in range(entry.size) if place not in entry.keep)
    wrong = dataclasses.replace(entry, keep=tuple(sorted((*entry.keep[:-1], other))))
    slices = (*plan.slices[:index], wrong, *plan.slices[index + 1 :])
    assert_unchanged(
        model, lambda: ranp.verify(model, dataclasses.replace(plan, slices=slices), inputs()), VerificationError
    )
    assert_unchanged(model, lambda: ranp.trace(model, torch.zeros(2, 4, 9, 9)), TraceError)
    impossible = ranp.Budget(macs=1e-6)
    assert_unchanged(model, lambda: ranp.prune(model, inputs(), data, F.mse_loss, budget=impossible), BudgetError)
    model.fail = True
    assert_unchanged(model, lambda: ranp.trace(model, inputs()), TraceError)
    assert_unchanged(model, lambda: ranp.prune(model, inputs(), data, F.mse_loss, budget=budget), TraceError)
    assert_unchanged(model, lambda: ranp.score(model, graph, data, F.mse_loss), InputError)
    assert_unchanged(model, lambda: ranp.verify(model, plan, inputs()), RanpError)


def test_hooks_of_the_caller_stay_and_are_not_copied_twice() -> None:
    model, calls = network(), []
    handle = model.head.register_forward_hook(lambda *_: calls.append(1))
    result = ranp.prune(model, inputs(), batches(), F.mse_loss, budget=ranp.Budget(macs=0.5))
    calls.clear()
    model(inputs())
    result.model(inputs())
    assert len(calls) == 2
    handle.remove()
    model(inputs())
    assert len(calls) == 2


def test_fast_attention_is_restored() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        for enabled in (True, False):
            torch.backends.mha.set_fastpath_enabled(enabled)
            ranp.trace(network(), inputs())
            with pytest.raises(TraceError):
                ranp.trace(network(), torch.zeros(1))
            assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


# -- what prune returns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_end_to_end(criterion: str, importance: Any) -> None:
    model = CASES["residual_with_projection"].build()
    example = CASES["residual_with_projection"].inputs()
    data = [(example, torch.ones(2, 2, 4, 4))]
    told: list[tuple[str, int, int]] = []
    result = ranp.prune(
        model,
        example,
        data,
        F.mse_loss,
        budget=ranp.Budget(macs=0.5),
        criterion=criterion,
        importance=importance,
        seed=4,
        progress=lambda *args: told.append(args),
    )
    again = ranp.apply(model, result.plan).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in result.model.state_dict().items())
    assert result.model(example).shape == (2, 2, 4, 4)
    assert counted_macs(result.model.eval(), example) == result.plan.cost.macs <= 0.5 * counted_macs(model, example)
    assert (result.plan.criterion, result.plan.seed) == (criterion, 4)
    assert result.verification.status == "exact"
    assert (result.report.before, result.report.after) == (result.plan.full_cost, result.plan.cost)
    assert {row.layer: row.kept for row in result.report.layers} == result.plan.widths
    whats = [what for what, *_ in told]
    assert [w for i, w in enumerate(whats) if whats.index(w) == i] == [
        "tracing",
        *(["scoring"] if criterion != "random" else []),
        "allocating",
        "verifying",
        "applying",
    ]


def test_the_pruned_model_trains() -> None:
    model = CASES["unet_of_odd_size"].build()
    x = image(2, 1, 5, 7, 6)()
    y = torch.cat([F.avg_pool3d(x, 3, stride=1, padding=1), -x], 1)
    small = ranp.prune(model, x, [(x, y)], F.mse_loss, budget=ranp.Budget(params=0.5)).model
    optimiser = torch.optim.Adam(small.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = F.mse_loss(small(x), y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_the_report_can_be_read() -> None:
    result = ranp.prune(network(), inputs(), batches(), F.mse_loss, budget=ranp.Budget(macs=0.5))
    text = str(result.report)
    for layer, kept in result.plan.widths.items():
        row = next(line for line in text.splitlines() if f" {layer} " in line)
        assert f" {kept} " in row
    assert "multiply-adds" in text
    assert result.report.warnings == ()


def test_the_report_warns() -> None:
    def report(norm: nn.Module) -> Any:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Conv2d(8, 2, 1))
        x = image(2, 3, 7, 7)()
        data = [(x, torch.ones(2, 2, 5, 5))]
        return ranp.prune(model, x, data, F.mse_loss, budget=ranp.Budget(macs=0.9)).report

    assert report(nn.BatchNorm2d(8)).warnings == ()
    assert "mixes channels" in report(nn.GroupNorm(1, 8)).warnings[0]
    case = CASES["operator_without_a_rule"]
    model = case.build()
    model.before, model.after = nn.Conv2d(3, 40, 1), nn.Conv2d(40, 5, 1)
    data = [(case.inputs(), torch.ones(2, 2, 7, 7))]
    found = ranp.prune(model, case.inputs(), data, F.mse_loss, budget=ranp.Budget(params=0.99)).report
    share = (3 * 40) / (3 * 40 + 40 * 5 + 5 * 2)
    assert [entry.macs_share for entry in found.frozen if entry.operator == "sort"] == [pytest.approx(share)]


# -- bad input ---------------------------------------------------------------------------------------------------


def nan_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.sum() * math.nan


X, Y = torch.zeros(2, 3, 9, 9), torch.zeros(2, 2, 5, 5)
BAD: dict[str, tuple[dict[str, Any], type[RanpError], str]] = {
    "an empty loader": ({"batches": []}, InputError, "^batches: got none; expected at least one batch; .*used only once"),
    "a loader that is none": ({"batches": 5}, InputError, "^batches: got int; expected an iterable"),
    "batches that are no pairs": (
        {"batches": [X]},
        InputError,
        r"^batch: got a tensor of shape \(2, 3, 9, 9\); expected a pair \(inputs, targets\); for other batches give step=",
    ),
    "a batch with other channels": (
        {"batches": [(X, Y), (torch.zeros(2, 4, 9, 9), Y)]},
        InputError,
        r"^batch 1: got RuntimeError: .*\(2, 4, 9, 9\).*; expected a batch that the model and the loss take; compare",
    ),
    "targets of another shape": (
        {"batches": [(X, torch.zeros(2, 2, 4, 4))], "loss_fn": lambda outputs, targets: (outputs - targets).abs().mean()},
        InputError,
        r"^batch 0: got RuntimeError.*\(2, 2, 4, 4\).*; compare its shapes with example_inputs",
    ),
    "no targets": ({"batches": [(X, None)]}, InputError, "^batch 0: got AttributeError.*NoneType.*; compare its shapes"),
    "a loss per element": (
        {"loss_fn": lambda outputs, targets: (outputs - targets) ** 2},
        InputError,
        r"^loss of batch 0: got a tensor of shape \(2, 2, 5, 5\); expected a tensor with one element; reduce it",
    ),
    "a loss that is a number": (
        {"loss_fn": lambda outputs, targets: float(outputs.detach().sum())},
        InputError,
        "^loss of batch 0: got float; expected a tensor with one element",
    ),
    "a loss that is NaN": ({"loss_fn": nan_loss}, InputError, "^loss of batch 0: got nan; expected a finite number; check"),
    "a loss that is infinite": (
        {"loss_fn": lambda outputs, targets: outputs.sum() - math.inf},
        InputError,
        "^loss of batch 0: got -inf; expected a finite number; check the data",
    ),
    "a loss that needs no gradient": (
        {"loss_fn": lambda outputs, targets: outputs.detach().sum()},
        InputError,
        "^loss of batch 0: got a loss that needs no gradient; expected a loss that depends on .*; compute it without",
    ),
    "no loss": ({"loss_fn": None}, InputError, "^loss_fn: got None; expected a function of .*; or give step="),
    "a budget below the minimum": (
        {"budget": ranp.Budget(macs=0.001)},
        BudgetError,
        r"^allocate: got macs=0.001; expected a feasible budget: macs >= 0\.\d+; raise the budget or lower min_width",
    ),
    "an unknown criterion": (
        {"criterion": "rapn-f"},
        InputError,
        "^criterion: got 'rapn-f'; expected a known criterion; did you mean 'ranp-f'.*known: layerwise",
    ),
    "an unknown reading": (
        {"importance": "neurons"},
        InputError,
        "^importance: got 'neurons'; expected a known reading; did you mean 'neuron'",
    ),
    "an unknown way to draw weights": (
        {"weights": "orthogonl"},
        InputError,
        "^weights: got 'orthogonl'; expected a known way; did you mean 'orthogonal'",
    ),
    "a minimum width of 0": ({"min_width": 0}, InputError, "^min_width: got 0; expected an integer of at least 1"),
    "example inputs of the wrong shape": (
        {"example_inputs": torch.zeros(2, 4, 9, 9)},
        TraceError,
        "^forward of 0: got RuntimeError: .*channels.*; expected a forward pass that runs.*; check the shape",
    ),
    "example inputs of the wrong kind": (
        {"example_inputs": "image"},
        InputError,
        r"^inputs: got str; expected a tensor, a tuple \(positional arguments\) or a dict",
    ),
    "a model without layers to prune": (
        {"model": nn.Sequential(nn.Conv2d(3, 2, 5))},
        TraceError,
        "^model: got no channel that may be removed .*output.*; expected a network with at least one layer between",
    ),
    "a model without layers": ({"model": nn.ReLU()}, TraceError, "^model: got no channel.*no convolution or linear layer"),
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

    assert_unchanged(copy.deepcopy(model), act)
    assert_unchanged(model, act)


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
