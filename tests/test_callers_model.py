"""Whatever ranp does, and however it fails, the caller's model is left exactly as it was."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ranp
from helpers.oracles import random_plan
from helpers.unchanged import Network, assert_unchanged, batches, inputs, network
from ranp.errors import BudgetError, InputError, TraceError, VerificationError
from ranp.scoring import CRITERIA


def test_every_step_leaves_the_model_as_it_was(tmp_path: Any) -> None:
    model, data = network(), batches()
    graph = ranp.trace(Network(), inputs())
    scores = ranp.score(Network(), graph, data, F.mse_loss)
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=0.5))
    folder = ranp.save(ranp.apply(model, plan), plan, tmp_path / "it")
    assert_unchanged(model, lambda: ranp.trace(model, inputs()))
    for criterion in CRITERIA.keys() - {"ranp-t"}:  # Not without step times; measuring them is tested elsewhere.
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
    assert_unchanged(model, lambda: ranp.verify(model, plan, inputs()), RuntimeError)


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
