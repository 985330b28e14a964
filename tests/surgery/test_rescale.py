"""Weights that are rescaled because a forward multiplies by a number that depends on a width."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import ranp
from helpers.networks import CASES
from helpers.oracles import assert_same_outputs, in_double, random_plan, randomize, run, zeroed
from ranp.errors import PlanError, VerificationError
from ranp.plan import Plan

# What the weights and biases are multiplied by where heads keep half of their channels: the inverse of the square root
# by which the scale grows, for the layers that share it.
FACTORS = {
    "dot_product_attention": {"query": 0.5**0.25, "key": 0.5**0.25},
    "attention_with_a_scale_from_the_head_size": {"query": 0.5**0.5},
    "attention_by_einsum": {"query": 0.5**0.5},
    "multi_query_attention": {"query": 0.5**0.25, "key": 0.5**0.25},
}


def at_half_width(name: str, model: nn.Module) -> Plan:
    """A plan that keeps two of four channels in each head."""
    inputs = in_double(CASES[name].inputs())
    return next(
        plan
        for plan in (random_plan(ranp.trace(model, inputs), 0, step / 40) for step in range(40))
        if plan.widths["query"] == plan.full_widths["query"] // 2
    )


@pytest.mark.parametrize("name", FACTORS)
def test_factors_by_hand(name: str) -> None:
    model = randomize(CASES[name].build())
    plan = at_half_width(name, model)
    found = {entry.tensor: entry.factor for entry in plan.rescale}
    assert found == pytest.approx(
        {f"{layer}.{part}": factor for layer, factor in FACTORS[name].items() for part in ("weight", "bias")}
    )


@pytest.mark.parametrize("name", FACTORS)
def test_plans_without_a_factor_are_noticed(name: str) -> None:
    model, inputs = randomize(CASES[name].build()), in_double(CASES[name].inputs())
    plan = at_half_width(name, model)
    # A bias of keys adds the same to all entries of a softmax.
    for missing in (entry for entry in plan.rescale if entry.tensor != "key.bias"):
        others = tuple(entry for entry in plan.rescale if entry is not missing)
        with pytest.raises(VerificationError):
            ranp.verify(model, dataclasses.replace(plan, rescale=others), inputs)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.products])
def test_saved_and_pruned_twice(name: str, tmp_path: Path) -> None:
    model, inputs = randomize(CASES[name].build()), in_double(CASES[name].inputs())
    plan = random_plan(ranp.trace(model, inputs), 0, 0.6, min_width=2)
    once = ranp.load(ranp.save(ranp.apply(model, plan), plan, tmp_path / "once"), model)
    again = random_plan(ranp.trace(once, inputs), 1, 0.4)
    twice = ranp.apply(once, again)
    assert ranp.verify(once, again, inputs).status == "exact"
    assert_same_outputs(zeroed(once, again), twice, inputs)
    assert_same_outputs(zeroed(model, plan), once, inputs)


def test_new_weights_are_not_rescaled() -> None:
    model = randomize(CASES["dot_product_attention"].build())
    plan = at_half_width("dot_product_attention", model)
    small, same = (
        ranp.apply(model, changed, weights="glorot", seed=1)
        for changed in (plan, dataclasses.replace(plan, rescale=()))
    )
    inputs = in_double(CASES["dot_product_attention"].inputs())
    assert torch.equal(run(small, inputs)[0], run(same, inputs)[0])


@pytest.mark.parametrize(
    "change", [{"tensor": "other"}, {"dim": 2}, {"dim": -1}, {"at": (99,)}, {"factor": 0.0}, {"at": ()}]
)
def test_hostile_entries_are_refused(change: dict[str, object]) -> None:
    model = randomize(CASES["dot_product_attention"].build())
    plan = at_half_width("dot_product_attention", model)
    entry = dataclasses.replace(plan.rescale[0], **change)  # type: ignore[arg-type]
    with pytest.raises(PlanError):
        ranp.apply(model, Plan.from_json(dataclasses.replace(plan, rescale=(entry,)).to_json()))
