"""What pruning promises: the pruned model computes what the original does with the removed channels' readers zeroed."""

import pytest
from torch import nn

import ranp
from helpers.networks import CASES, Case
from helpers.oracles import (
    assert_attributes_fit,
    assert_same_outputs,
    in_double,
    masked_like,
    random_plan,
    randomize,
    run,
    zeroed,
)
from ranp.plan import Plan

FRACTIONS = (0.0, 0.3, 0.6, 0.9)


def masked(case: Case, full: nn.Module, small: nn.Module, plan: Plan) -> nn.Module:
    """The full model without what the small one lacks; see the two oracles."""
    return zeroed(full, plan) if case.products else masked_like(full, small)


@pytest.mark.parametrize("name", CASES)
def test_hand_made_networks(name: str) -> None:
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    graph = ranp.trace(model, inputs)
    for seed, fraction in enumerate(FRACTIONS):
        plan = random_plan(graph, seed, fraction)
        small = ranp.apply(model, plan)
        assert_same_outputs(masked(case, model, small, plan), small, inputs)
        assert_attributes_fit(small)


@pytest.mark.parametrize("name", CASES)
def test_masking_changes_the_outputs(name: str) -> None:
    """Without this, the test above could compare a network with itself."""
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    plan = random_plan(ranp.trace(model, inputs), 0, 0.0)
    before, after = run(model, inputs), run(masked(case, model, ranp.apply(model, plan), plan), inputs)
    assert max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True)) > 1e-3
