"""Budgets on training memory, from the argument of `prune` to the memory that the pruned network takes."""

import pytest
import torch
import torch.nn.functional as F

import ranp
from ranp.errors import BudgetError
from ranp.memory import predict_memory
from ranp.models import UNet3D


@pytest.mark.parametrize("limit", [0.4, "1500 KiB"])
@pytest.mark.parametrize("policy", ["threshold", "balanced"])
def test_a_budget_on_training_memory_is_met(limit: float | str, policy: str) -> None:
    model, x = UNet3D(1, 2, 16, levels=2), torch.randn(1, 1, 8, 8, 8)
    setup = ranp.TrainingSetup(
        optimizer="sgd", batch=(x.repeat(2, 1, 1, 1, 1), torch.zeros(2, 8, 8, 8).long()), loss_fn=F.cross_entropy
    )
    budget = ranp.Budget(train_memory=limit)
    result = ranp.prune(
        model, x, [], budget=budget, criterion="uniform", setup=setup, policy=policy, min_width=1, round_to=1
    )
    found, full = (predict_memory(each, x, setup).peak_bytes for each in (result.model, model))
    assert result.plan.cost.train_bytes == found
    assert result.plan.full_cost.train_bytes == full
    most = 1500 * 2**10 if isinstance(limit, str) else limit * full
    assert 0.8 * most < found <= most
    assert "training memory" in str(result.report)


def test_a_budget_on_training_memory_below_the_minimum_is_refused_in_its_unit() -> None:
    model, x = UNet3D(1, 2, 16, levels=2), torch.randn(1, 1, 8, 8, 8)
    with pytest.raises(
        BudgetError, match=r"got train_memory=1 KiB; expected a feasible budget: train_memory >= [\d.]+ KiB"
    ):
        ranp.prune(model, x, [], budget=ranp.Budget(train_memory="1 KiB"), criterion="uniform")
