"""Budgets: what is a limit and what is not."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from ranp import Budget
from ranp.costs import RESOURCES, Cost
from ranp.errors import BudgetError

FULL = Cost(macs=1000, params=300, activation_bytes=64, neurons=20)


def test_limits_by_hand() -> None:
    budget = Budget(macs=0.0507, params=1, activations=0.5, sparsity=0.65)
    assert budget.limits(FULL) == {"macs": 50.7, "params": 300, "activation_bytes": 32, "neurons": 7}
    assert list(Budget(sparsity=0, macs=0.2).given()) == [("macs", 0.2), ("sparsity", 0)]


@pytest.mark.parametrize(
    ("limit", "stored", "amount"),
    [
        ({"macs": "0.3k"}, "0.3 k", 300),
        ({"macs": "10G"}, "10 G", 1e10),
        ({"macs": "10g"}, "10 G", 1e10),
        ({"macs": "25%"}, 0.25, 250),
        ({"macs": "0.25"}, 0.25, 250),
        ({"params": "1.5 M"}, "1.5 M", 1.5e6),
        ({"activations": "512 MiB"}, "512 MiB", 2**29),
        ({"activations": "1gb"}, "1 GB", 1e9),
        ({"step_time": "80 ms"}, "80 ms", 0.08),
        ({"step_time": "80µs"}, "80 us", 80e-6),
        ({"step_time": 0.4}, 0.4, 0.8),
        ({"train_memory": "8GIB"}, "8 GiB", 2**33),
        ({"sparsity": "80%"}, 0.8, 4),
    ],
)
def test_limits_are_fractions_or_amounts_with_a_unit(limit: dict[str, Any], stored: float | str, amount: float) -> None:
    budget = Budget(**limit)
    (name, value), full = next(iter(budget.given())), replace(FULL, step_seconds=2.0, train_bytes=100)
    assert (name, value) == (next(iter(limit)), stored)
    assert list(budget.limits(full).values()) == [pytest.approx(amount, rel=1e-12)]
    # What it stores reads back as the same limit: JSON, recipes and command lines hold that.
    assert Budget(**{name: value}) == budget
    assert Budget(**{name: str(value)}) == budget


@pytest.mark.parametrize(
    "wrong", [0, -0.1, 1.0001, math.nan, math.inf, "1.5", "nan", "-5%", "150%", "", "G", True, [0.5]]
)
@pytest.mark.parametrize("name", ["macs", "params", "activations", "step_time", "train_memory"])
def test_a_fraction_to_keep_is_above_0_and_at_most_1(name: str, wrong: Any) -> None:
    with pytest.raises(
        BudgetError, match=rf"^Budget: got {name}=.*; expected a fraction to keep in \(0, 1\], for example"
    ):
        Budget(**{name: wrong})


@pytest.mark.parametrize("wrong", [1, -0.1, math.nan, "1.5", "5G", True])
def test_a_fraction_to_remove_is_at_least_0_and_below_1(wrong: Any) -> None:
    with pytest.raises(BudgetError, match=r"^Budget: got sparsity=.*; expected a fraction"):
        Budget(sparsity=wrong)


def test_a_number_that_was_meant_as_a_percentage_is_recognized() -> None:
    with pytest.raises(BudgetError, match=r'got macs=25; .* for example macs="25%", or an amount such as macs=\'10G\''):
        Budget(macs=25)


@pytest.mark.parametrize(
    ("name", "wrong", "units"), [("macs", "10 ms", "k, M, G"), ("step_time", "8 GiB", "us, ms, s")]
)
def test_an_unknown_unit_is_refused_with_those_that_exist(name: str, wrong: str, units: str) -> None:
    with pytest.raises(BudgetError, match=f"^Budget: got {name}='{wrong}'; expected .* an amount in {units}"):
        Budget(**{name: wrong})


def test_limits_on_other_resources() -> None:
    budget = Budget(macs=0.5, custom={"energy": 0.3})
    assert (list(budget.given()), budget.limits(FULL), str(budget)) == (
        [("macs", 0.5)],
        {"macs": 500.0},
        "macs=0.5, energy=0.3",
    )
    assert budget == Budget(macs=0.5, custom={"energy": 0.3}) != Budget(macs=0.5)
    assert hash(budget) == hash(Budget(macs=0.5, custom={"energy": 0.3}))
    for wrong in (0, 1.5, "1.5", "5 J", True, math.nan):
        with pytest.raises(BudgetError, match=r"got energy=.*; expected a fraction"):
            Budget(custom={"energy": wrong})
    for name in ("macs", "activations", "activation_bytes", "neurons", "sparsity", "", 3):
        with pytest.raises(BudgetError, match="a custom limit cannot have the name"):
            Budget(custom={name: 0.5})
    with pytest.raises(BudgetError, match="custom must be a mapping"):
        Budget(custom=0.5)


def test_every_resource_has_a_limit() -> None:
    assert {resource.name for resource in RESOURCES} == {entry.name for entry in fields(Cost)}
    assert {resource.limit for resource in RESOURCES} | {"custom"} == {entry.name for entry in fields(Budget)}
    assert [resource.of(FULL) for resource in RESOURCES] == [None, None, 1000, 300, 64, 20]


def test_a_budget_has_a_limit() -> None:
    with pytest.raises(BudgetError, match=r"^Budget: it has no limit; give at least one, for example Budget"):
        Budget()
