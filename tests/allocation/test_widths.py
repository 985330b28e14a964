"""The widths that groups may have: aligned, guarded, nearest; and what plans look like by default."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ranp
from helpers.oracles import EVERY_WIDTH, random_scores, scores_of
from ranp.allocation import WidthGrid
from ranp.errors import InputError
from ranp.graph import ChannelGraph
from ranp.models import UNet3D


def chain(*widths: int) -> ChannelGraph:
    sizes = (1, *widths, 2)
    model = nn.Sequential(*(nn.Conv1d(*pair, 1) for pair in pairwise(sizes)))
    return ranp.trace(model, torch.zeros(1, 1, 3))


@pytest.fixture(scope="module")
def unet() -> ChannelGraph:
    return ranp.trace(UNet3D(1, 4, width=16), torch.zeros(1, 1, 16, 16, 16))


@pytest.mark.parametrize(
    ("full", "min_width", "round_to", "allowed"),
    [
        (20, None, None, [2, 4, 8, 16, 20]),
        (6, None, None, [2, 4, 6]),
        (2, None, None, [2]),
        (20, 5, None, [8, 16, 20]),
        (20, 64, None, [20]),
        (20, None, 16, [16, 20]),
        (6, None, 8, [6]),
        (20, 1, 6, [6, 12, 18, 20]),
        (5, 2, 1, [2, 3, 4, 5]),
    ],
)
def test_allowed_widths(full: int, min_width: int | None, round_to: int | None, allowed: list[int]) -> None:
    grid = WidthGrid(chain(full), min_width, round_to)
    assert grid.allowed[0].tolist() == allowed
    assert grid.narrowest.tolist() == [allowed[0]]
    for wanted in np.linspace(0, full, 50):
        gaps = [abs(width - wanted) for width in allowed]
        assert abs(grid.nearest(np.array([wanted]))[0] - wanted) == min(gaps)


def test_the_guard_is_half_of_the_mean_share() -> None:
    grid = WidthGrid(chain(100, 40, 10))
    # Shares of 0.9, 0.05 and 0.1: half of their mean, 0.35, is 0.175.
    assert grid.guarded(np.array([90, 2, 1])).tolist() == pytest.approx([90, 7, 1.75])
    assert WidthGrid(chain(100, 40, 10), min_width=1).guarded(np.array([90, 2, 1])).tolist() == [90, 2, 1]


@pytest.mark.parametrize("macs", [0.03, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("policy", ["threshold", "balanced"])
def test_default_plans_are_aligned_and_starve_no_layer(unet: ChannelGraph, policy: str, macs: float) -> None:
    for seed in range(4):
        # Scores whose mean differs by a factor of up to 1,000 between groups: plain thresholds leave single channels.
        means = 10.0 ** np.random.default_rng(seed).uniform(-3, 0, len(unet.groups))
        scores = scores_of(unet, random_scores(unet, seed).channels * means[unet.group_of])
        budget = ranp.Budget(macs=macs)
        plan = ranp.allocate(unet, scores, budget, policy=policy)
        widths = np.array([len(plan.keep[group.name]) for group in unet.groups])
        assert plan.cost.macs <= macs * plan.full_cost.macs
        assert ((widths % 8 == 0) | np.isin(widths, [2, 4]) | (widths == unet.widths)).all()
        shares = widths / unet.widths
        assert (shares >= 0.25 * shares.mean()).all(), "the guard, rounded to the nearest allowed width"
        plain = ranp.allocate(unet, scores, budget, **EVERY_WIDTH)
        assert min(len(kept) for kept in plain.keep.values()) <= (1 if macs <= 0.25 else 3)


def test_the_default_uses_the_budget(unet: ChannelGraph) -> None:
    scores = ranp.score(nn.Identity(), unet, [], criterion="uniform")
    for macs in (0.1, 0.25, 0.5, 0.75):
        plan = ranp.allocate(unet, scores, ranp.Budget(macs=macs))
        assert 0.6 * macs < plan.cost.macs / plan.full_cost.macs <= macs


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
@pytest.mark.parametrize("name", ["min_width", "round_to"])
def test_widths_must_be_positive_integers(name: str, wrong: Any) -> None:
    with pytest.raises(InputError, match=f"^{name}: got .*; expected an integer of at least 1"):
        ranp.allocate(chain(4), scores_of(chain(4), range(4)), ranp.Budget(macs=0.5), **{name: wrong})
