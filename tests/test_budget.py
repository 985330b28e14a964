"""Budgets: what is a limit and what is not."""

import math
from dataclasses import fields
from typing import Any

import pytest

from ranp import Budget
from ranp.costs import RESOURCES, Cost
from ranp.errors import BudgetError

FULL = Cost(macs=1000, params=300, activation_bytes=64, neurons=20)


def test_limits_by_hand() -> None:
    budget = Budget(macs=0.0507, params=1, activations=0.5, sparsity=0.65)
    assert budget.limits(FULL) == {"macs": 50, "params": 300, "activation_bytes": 32, "neurons": 7}
    assert list(Budget(sparsity=0, macs=0.2).given()) == [("macs", 0.2), ("sparsity", 0)]


@pytest.mark.parametrize(("fraction", "limit"), [(0.1, 100), (0.3, 300), (0.7, 700), (0.29, 290), (0.0999, 99)])
def test_decimal_fractions_are_not_missed_for_a_rounding_error(fraction: float, limit: int) -> None:
    assert Budget(macs=fraction).limits(FULL) == {"macs": limit}
    assert Budget(sparsity=round(1 - fraction, 4)).limits(Cost(0, 0, 0, neurons=1000)) == {"neurons": limit}


@pytest.mark.parametrize("wrong", [0, -0.1, 1.0001, 50, math.nan, math.inf, "0.5", True, [0.5]])
@pytest.mark.parametrize("name", ["macs", "params", "activations"])
def test_a_fraction_to_keep_is_above_0_and_at_most_1(name: str, wrong: Any) -> None:
    with pytest.raises(
        BudgetError, match=rf"^Budget: got {name}=.*; expected a fraction to keep in \(0, 1\]; for example"
    ):
        Budget(**{name: wrong})


@pytest.mark.parametrize("wrong", [1, -0.1, 50, math.nan, "0.5", True])
def test_a_fraction_to_remove_is_at_least_0_and_below_1(wrong: Any) -> None:
    with pytest.raises(BudgetError, match=r"^Budget: got sparsity=.*; expected a fraction to remove in \[0, 1\)"):
        Budget(sparsity=wrong)


def test_limits_on_other_resources() -> None:
    budget = Budget(macs=0.5, custom={"energy": 0.3})
    assert (list(budget.given()), budget.limits(FULL), str(budget)) == (
        [("macs", 0.5)],
        {"macs": 500},
        "macs=0.5, energy=0.3",
    )
    assert budget == Budget(macs=0.5, custom={"energy": 0.3}) != Budget(macs=0.5)
    assert hash(budget) == hash(Budget(macs=0.5, custom={"energy": 0.3}))
    for wrong in (0, 1.5, "0.5", True, math.nan):
        with pytest.raises(BudgetError, match=r"got energy=.*; expected a fraction to keep in \(0, 1\]"):
            Budget(custom={"energy": wrong})
    for name in ("macs", "activations", "activation_bytes", "neurons", "sparsity", "", 3):
        with pytest.raises(BudgetError, match="a custom limit cannot have the name"):
            Budget(custom={name: 0.5})
    with pytest.raises(BudgetError, match="custom must be a mapping"):
        Budget(custom=0.5)


def test_every_resource_has_a_limit() -> None:
    assert [resource.name for resource in RESOURCES] == [entry.name for entry in fields(Cost)]
    assert [resource.limit for resource in RESOURCES] == [entry.name for entry in fields(Budget)][:-1]
    assert [resource.of(FULL) for resource in RESOURCES] == [1000, 300, 64, 20]


def test_a_budget_has_a_limit() -> None:
    with pytest.raises(BudgetError, match=r"^Budget: it has no limit; give at least one, for example Budget"):
        Budget()
