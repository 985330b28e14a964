"""Allocation on arrays: budgets are met to within one channel, never exceeded, and the best channels are kept."""

import os
import subprocess
import sys
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import ranp
from helpers.networks import CASES
from helpers.oracles import EVERY_WIDTH, random_scores, scores_of
from ranp.allocation.threshold import rank
from ranp.costs import Resource
from ranp.errors import BudgetError, InputError
from ranp.graph import ChannelGraph
from ranp.plan import Plan

RESOURCES = {"macs": "macs", "params": "params", "activations": "activation_bytes", "sparsity": "neurons"}
fraction = st.floats(0.02, 1.0)


@lru_cache
def graph_of(name: str) -> ChannelGraph:
    return ranp.trace(CASES[name].build(), CASES[name].inputs())


def narrowest(graph: ChannelGraph, min_width: int = 1, round_to: int = 1) -> Any:
    return graph.cost(np.minimum(graph.widths, -(-min_width // round_to) * round_to))


def budget_at(graph: ChannelGraph, at: dict[str, float], min_width: int = 1, round_to: int = 1) -> ranp.Budget:
    """A feasible budget: each limit that far from the narrowest network's cost to the full one's."""
    least, full = narrowest(graph, min_width, round_to), graph.cost()
    limits = {}
    for name, share in at.items():
        low, high = getattr(least, RESOURCES[name]), getattr(full, RESOURCES[name])
        kept = (low + share * (high - low)) / high
        limits[name] = max(0.0, 1 - kept) if name == "sparsity" else min(1.0, kept)
    return ranp.Budget(**limits)


def limits_of(budget: ranp.Budget, graph: ChannelGraph) -> dict[str, float]:
    """Limits as real numbers, by a second computation."""
    full = graph.cost()
    return {
        RESOURCES[name]: getattr(full, RESOURCES[name]) * (1 - value if name == "sparsity" else value) * (1 + 1e-9)
        for name, value in budget.given()
    }


def widths_of(plan: Plan, graph: ChannelGraph) -> Any:
    return np.array([len(plan.keep[group.name]) for group in graph.groups])


def exceeds(graph: ChannelGraph, widths: Any, limits: dict[str, float]) -> bool:
    cost = graph.cost(widths)
    return any(getattr(cost, name) > limit for name, limit in limits.items())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["plain", "residual", "nested_concatenation", "depthwise", "grouped_in_few_blocks"]),
    seed=st.integers(0, 999),
    at=st.dictionaries(st.sampled_from(sorted(RESOURCES)), fraction, min_size=1),
    min_width=st.integers(1, 5),
)
def test_budgets_are_met_to_within_one_channel(name: str, seed: int, at: dict[str, float], min_width: int) -> None:
    graph = graph_of(name)
    scores = random_scores(graph, seed)
    budget = budget_at(graph, at, min_width)
    plan = ranp.allocate(graph, scores, budget, min_width=min_width, round_to=1)
    widths, limits = widths_of(plan, graph), limits_of(budget, graph)
    assert not exceeds(graph, widths, limits)
    assert (widths >= np.minimum(graph.widths, min_width)).all()
    # Within each group the best are kept; the best channel that is removed would exceed a limit.
    left: list[tuple[float, int]] = []
    for index, group in enumerate(graph.groups):
        found = scores.channels[graph.offsets[index] : graph.offsets[index + 1]]
        best = np.argsort(-found, kind="stable")
        assert sorted(best[: widths[index]]) == list(plan.keep[group.name])
        left += [(found[channel], index) for channel in best[widths[index] :]]
    if left:
        wider = widths.copy()
        wider[max(left)[1]] += 1
        assert exceeds(graph, wider, limits)
    else:
        assert plan.cost == graph.cost()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    resource=st.sampled_from(sorted(RESOURCES)),
    shares=st.tuples(fraction, fraction),
    round_to=st.integers(1, 3),
)
def test_a_tighter_budget_never_costs_more(
    seed: int, resource: str, shares: tuple[float, float], round_to: int
) -> None:
    graph = graph_of("nested_concatenation")
    scores = random_scores(graph, seed)
    tight, loose = (
        ranp.allocate(graph, scores, budget_at(graph, {resource: share}, 1, round_to), min_width=1, round_to=round_to)
        for share in sorted(shares)
    )
    for name in RESOURCES.values():
        assert getattr(tight.cost, name) <= getattr(loose.cost, name)
    for group in graph.groups:
        assert set(tight.keep[group.name]) <= set(loose.keep[group.name])


@pytest.mark.parametrize("seed", range(8))
def test_the_threshold_is_the_lowest_that_fits(seed: int) -> None:
    """All thresholds are tried on a small network; ties are cut where the ranking puts them."""
    graph = graph_of("residual")
    scores = scores_of(graph, np.random.default_rng(seed).integers(0, 5, len(graph.group_of)))
    budget = budget_at(graph, {"macs": 0.15 + 0.1 * seed})
    limits = limits_of(budget, graph)
    order = sorted(range(len(graph.group_of)), key=lambda channel: (-scores.channels[channel], channel))
    feasible = []
    for count in range(len(order) + 1):
        kept = set(order[:count])
        for group in range(len(graph.groups)):  # the guard: at least the best of every group
            kept.add(next(channel for channel in order if graph.group_of[channel] == group))
        widths = np.bincount(graph.group_of[sorted(kept)], minlength=len(graph.groups))
        if not exceeds(graph, widths, limits):
            feasible.append(kept)
    plan = ranp.allocate(graph, scores, budget, **EVERY_WIDTH)
    chosen = {
        int(start) + channel
        for start, group in zip(graph.offsets, graph.groups, strict=False)
        for channel in plan.keep[group.name]
    }
    assert chosen == max(feasible, key=len)
    assert 2 < len(chosen) < 11


def test_ranking_by_hand() -> None:
    # Groups: stem of 6, inner of 5. The best of each are guarded; ties go to the lower number.
    graph = graph_of("residual")
    scores = scores_of(graph, [5, 9, 1, 9, 2, 7, 3, 0, 8, 6, 6])
    ranking, guarded = rank(graph, scores, 1)
    assert (ranking.tolist(), guarded) == ([1, 8, 3, 5, 9, 10, 0, 6, 4, 2, 7], 2)
    ranking, guarded = rank(graph, scores, 2)
    assert (ranking.tolist(), guarded) == ([1, 3, 8, 9, 5, 10, 0, 6, 4, 2, 7], 4)


def test_a_whole_budget_keeps_everything() -> None:
    graph = graph_of("residual")
    plan = ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(macs=1.0, params=1.0, activations=1, sparsity=0))
    assert plan.cost == plan.full_cost
    assert plan.widths == plan.full_widths
    assert plan.slices == ()


def test_sparsity_counts_neurons_of_all_layers() -> None:
    # 8 + 8 + 4 neurons; half of them is 10: 4 outputs are kept, so 6 channels are.
    model = nn.Sequential(nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 1), nn.Conv1d(8, 4, 1))
    graph = ranp.trace(model, torch.zeros(1, 1, 3))
    plan = ranp.allocate(graph, scores_of(graph, range(16)), ranp.Budget(sparsity=0.5), **EVERY_WIDTH)
    assert plan.widths == {"0": 1, "1": 5, "2": 4}
    # A decimal fraction is not missed for a rounding error: 20 * (1 - 0.65) is 6.999999999999999.
    assert (
        ranp.allocate(graph, scores_of(graph, range(16)), ranp.Budget(sparsity=0.65), **EVERY_WIDTH).cost.neurons == 7
    )


@pytest.mark.parametrize("min_width", [1, 3, 9])
def test_widths_are_multiples_or_full(min_width: int) -> None:
    model = nn.Sequential(nn.Conv1d(1, 32, 1), nn.Conv1d(32, 20, 1), nn.Conv1d(20, 3, 1), nn.Conv1d(3, 2, 1))
    graph = ranp.trace(model, torch.zeros(1, 1, 3))
    least = [8, 8, 3] if min_width < 9 else [16, 16, 3]
    for seed in range(5):
        for share in (0.01, 0.1, 0.3, 0.5, 0.8):
            low, high = graph.cost(least).params, graph.cost().params
            budget = ranp.Budget(params=(low + share * (high - low)) / high)
            plan = ranp.allocate(graph, random_scores(graph, seed), budget, round_to=8, min_width=min_width)
            widths = widths_of(plan, graph)
            assert not exceeds(graph, widths, limits_of(budget, graph))
            assert ((widths % 8 == 0) | (widths == graph.widths)).all()
            assert (widths >= least).all()


# -- what cannot be met ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("min_width", [1, 3])
@pytest.mark.parametrize("resource", sorted(RESOURCES))
def test_the_feasible_minimum_is_named_and_accepted(resource: str, min_width: int) -> None:
    graph = graph_of("plain")
    impossible = ranp.Budget(**{resource: 0.999 if resource == "sparsity" else 0.001})
    with pytest.raises(
        BudgetError, match=r"^allocate: got .*raise the budget, or lower min_width and round_to"
    ) as caught:
        ranp.allocate(graph, random_scores(graph, 0), impossible, min_width=min_width, round_to=1)
    sign = "<=" if resource == "sparsity" else ">="
    named = float(str(caught.value).split(f"{resource} {sign} ")[1].split(";")[0])
    plan = ranp.allocate(
        graph, random_scores(graph, 0), ranp.Budget(**{resource: named}), min_width=min_width, round_to=1
    )
    assert plan.cost == narrowest(graph, min_width)
    # And it is the minimum, but for the rounding of the message.
    slack = 1.01 * named if resource == "sparsity" else 0.99 * named
    with pytest.raises(BudgetError):
        ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(**{resource: slack}), min_width=min_width, round_to=1)


def test_all_limits_are_named_together() -> None:
    graph = graph_of("plain")
    with pytest.raises(BudgetError, match=r"got macs=0.001, params=0.5; expected .*macs >= [\d.]+, params >= [\d.]+"):
        ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(macs=0.001, params=0.5))


def macs_of(graph: ChannelGraph, widths: Any) -> float:
    return graph.cost(widths).macs


def test_a_resource_of_ones_own_is_a_limit_like_any_other() -> None:
    graph, scores = graph_of("residual"), random_scores(graph_of("residual"), 3)
    mine = Resource("energy", lambda graph, widths: 0.25 * graph.cost(widths).macs)
    for fraction in (0.2, 0.45, 1.0):
        custom = ranp.allocate(graph, scores, ranp.Budget(custom={"energy": fraction}), resources=[mine])
        built_in = ranp.allocate(graph, scores, ranp.Budget(macs=fraction))
        assert custom.keep == built_in.keep
        assert custom.budget.custom == {"energy": fraction}
    # Together with another limit, the tighter of both decides.
    both = ranp.Budget(macs=0.8, custom={"energy": 0.3})
    plan = ranp.allocate(graph, scores, both, resources=[mine])
    assert plan.keep == ranp.allocate(graph, scores, ranp.Budget(macs=0.3)).keep
    assert Plan.from_json(plan.to_json()) == plan


def test_limits_on_resources_of_ones_own_are_refused_like_others() -> None:
    graph, scores = graph_of("plain"), random_scores(graph_of("plain"), 0)
    energy, area = Resource("energy", macs_of), Resource("area", macs_of, label="chip area")
    with pytest.raises(BudgetError, match=r"got energy=0.001; expected a feasible budget: energy >= [\d.]+; raise"):
        ranp.allocate(graph, scores, ranp.Budget(custom={"energy": 0.001}), resources=[area, energy])
    with pytest.raises(BudgetError, match=r"^budget: it limits 'energi', which is not .*did you mean 'energy'"):
        ranp.allocate(graph, scores, ranp.Budget(custom={"energi": 0.5}), resources=[area, energy])
    with pytest.raises(BudgetError, match=r"^budget: it limits 'energy', which is not .*; pass it in resources="):
        ranp.allocate(graph, scores, ranp.Budget(custom={"energy": 0.5}))


def test_prune_limits_resources_of_ones_own() -> None:
    case = CASES["plain"]
    mine = Resource("energy", macs_of)
    how: dict[str, Any] = {"criterion": "random", "resources": [mine]}
    result = ranp.prune(case.build(), case.inputs(), [], budget=ranp.Budget(custom={"energy": 0.4}), **how)
    assert 0 < result.plan.cost.macs <= 0.4 * result.plan.full_cost.macs


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2"])
@pytest.mark.parametrize("name", ["min_width", "round_to"])
def test_widths_must_be_positive_integers(name: str, wrong: Any) -> None:
    graph = graph_of("plain")
    with pytest.raises(InputError, match=f"^{name}: got .*; expected an integer of at least 1"):
        ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(macs=0.5), **{name: wrong})


@pytest.mark.parametrize("channels", [[1.0, 2.0], [np.nan] * 10, [np.inf] * 10])
def test_scores_must_fit(channels: list[float]) -> None:
    graph = graph_of("plain")
    with pytest.raises(
        InputError, match=r"^scores: the graph needs finite scores of shape \(\d+,\), not \(\d+,\) \(finite: "
    ):
        ranp.allocate(graph, scores_of(graph, channels), ranp.Budget(macs=0.5))


# -- the same again ----------------------------------------------------------------------------------------------

PROGRAM = """
import torch, ranp
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.Dropout(0.3), nn.Conv2d(9, 7, 3), nn.Conv2d(7, 2, 1))
x, y = torch.randn(2, 3, 9, 9), torch.randn(2, 2, 5, 5)
budget = ranp.Budget(macs=0.4)
plans = [
    ranp.prune(model, x, [(x, y)], nn.functional.mse_loss, budget=budget, criterion=criterion, seed=5).plan.to_json()
    for criterion in ("ranp-f", "random")
]
"""


def test_the_same_seed_gives_the_same_plan_in_another_process() -> None:
    here: dict[str, Any] = {}
    exec(PROGRAM, here)
    again: dict[str, Any] = {}
    exec(PROGRAM, again)
    assert here["plans"] == again["plans"]
    code = PROGRAM + "print(''.join(plans), end='')"
    environment = {**os.environ, "PYTHONHASHSEED": "3"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == "".join(here["plans"])


def test_another_seed_gives_another_plan() -> None:
    graph = graph_of("plain")
    plans = [
        ranp.allocate(graph, ranp.score(nn.Identity(), graph, [], criterion="random", seed=seed), ranp.Budget(macs=0.5))
        for seed in range(4)
    ]
    assert len({str(sorted(plan.keep.items())) for plan in plans}) > 1
