"""What pruning promises: the pruned model computes what the original does with the removed channels' readers zeroed."""

import pytest

import ranp
from helpers.networks import CASES
from helpers.oracles import (
    assert_attributes_fit,
    assert_masked_is_pruned,
    in_double,
    masked_like,
    random_plan,
    randomize,
    run,
)

FRACTIONS = (0.0, 0.3, 0.6, 0.9)


@pytest.mark.parametrize("name", CASES)
def test_hand_made_networks(name: str) -> None:
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    graph = ranp.trace(model, inputs)
    for seed, fraction in enumerate(FRACTIONS):
        small = ranp.apply(model, random_plan(graph, seed, fraction))
        assert_masked_is_pruned(model, small, inputs)
        assert_attributes_fit(small)


@pytest.mark.parametrize("name", CASES)
def test_masking_changes_the_outputs(name: str) -> None:
    """Without this, the test above could compare a network with itself."""
    case = CASES[name]
    model, inputs = randomize(case.build()), in_double(case.inputs())
    small = ranp.apply(model, random_plan(ranp.trace(model, inputs), 0, 0.0))
    before, after = run(model, inputs), run(masked_like(model, small), inputs)
    assert max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True)) > 1e-3
