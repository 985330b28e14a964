"""Balanced allocation: as good as exhaustive search, equal elasticity, groups tied by resolution and side."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.oracles import random_scores, scores_of
from ranp.allocation import Balanced, WidthGrid, allocated_widths, policy_named, tied_groups
from ranp.allocation.balanced import layers_per_group
from ranp.errors import BudgetError, InputError
from ranp.graph import ChannelGraph
from ranp.models import UNet3D


class Pyramid(nn.Module):
    """Three resolutions on the way down and two on the way up, some of them with several groups."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.one, self.two = nn.Conv2d(1, a, 3, padding=1), nn.Conv2d(a, b, 3, padding=1, stride=2)
        self.three, self.deep = nn.Conv2d(b, c, 3, padding=1), nn.Conv2d(c, d, 3, padding=1, stride=2)
        self.up, self.last = nn.ConvTranspose2d(d, e, 2, stride=2), nn.ConvTranspose2d(e + c, f, 2, stride=2)
        self.head = nn.Conv2d(f + a, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.one(x)
        middle = self.three(self.two(top))
        up = self.up(self.deep(middle))
        return self.head(torch.cat([top, self.last(torch.cat([middle, up], 1))], 1))


def pyramid(*widths: int) -> ChannelGraph:
    return ranp.trace(Pyramid(widths), torch.zeros(1, 1, 16, 16))


def test_groups_are_tied_by_resolution_and_side() -> None:
    classes, in_decoder = tied_groups(pyramid(8, 8, 8, 8, 8, 8))
    names = [group.name for group in pyramid(8, 8, 8, 8, 8, 8).groups]
    found = {
        name: (number, side) for name, number, side in zip(names, classes.tolist(), in_decoder.tolist(), strict=True)
    }
    assert found["two"] == found["three"]
    assert len({found[name] for name in ("one", "two", "deep", "up", "last")}) == 5
    assert [name for name in names if found[name][1]] == ["up", "last"]
    # A network that only becomes smaller has no decoder.
    chain = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(100, 4), nn.Linear(4, 2)
    )
    assert not tied_groups(ranp.trace(chain, torch.zeros(1, 1, 15, 15)))[1].any()


def test_layers_are_counted_by_hand() -> None:
    graph = ranp.trace(UNet3D(1, 2, width=4, levels=2), torch.zeros(1, 1, 8, 8, 8))
    assert layers_per_group(graph).tolist() == [1.0] * len(graph.groups)
    shared = nn.Conv1d(4, 4, 1)
    residual = nn.Sequential(nn.Conv1d(1, 4, 1), _Residual(shared), nn.Conv1d(4, 2, 1))
    assert layers_per_group(ranp.trace(residual, torch.zeros(1, 1, 3))).tolist() == [2.0]


class _Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


BUDGETS = [{"macs": 0.2}, {"macs": 0.5}, {"params": 0.3}, {"macs": 0.4, "activations": 0.5}]


@pytest.mark.parametrize("limits", BUDGETS, ids=str)
@pytest.mark.parametrize("policy", [Balanced(), Balanced(decoder=0.4), Balanced(use_scores=True)], ids=str)
def test_as_good_as_exhaustive_search(policy: Balanced, limits: dict[str, float]) -> None:
    """Every combination of widths of the five classes is tried; the search may miss the best of them by little."""
    for widths in ((8, 8, 8, 12, 8, 4), (8, 6, 6, 16, 4, 8)):
        graph = pyramid(*widths)
        scores, budget = random_scores(graph, 1), ranp.Budget(**limits)
        classes, in_decoder = tied_groups(graph)
        weights = layers_per_group(graph) * np.where(in_decoder, policy.decoder, 1)
        if policy.use_scores:
            means = np.array([part.mean() for part in np.split(scores.channels, graph.offsets[1:-1])])
            weights *= means / means.mean()
        grid = WidthGrid(graph, min_width=2, round_to=2)
        options = []
        for number in range(classes.max() + 1):
            members = classes == number
            fractions = np.geomspace(1 / 32, 1, 200)
            options.append(
                sorted({tuple(grid.nearest(fraction * graph.widths)[members].tolist()) for fraction in fractions})
            )
        best = -np.inf
        for choice in itertools.product(*options):
            tried = np.zeros(len(graph.groups), dtype=np.int64)
            for number, found in enumerate(choice):
                tried[classes == number] = found
            cost = graph.cost(tried)
            if all(getattr(cost, name) <= most for name, most in budget.limits(graph.cost()).items()):
                best = max(best, weights @ np.log(tried / graph.widths))
        got = allocated_widths(graph, scores, budget, policy=policy, min_width=2, round_to=2)
        utility = weights @ np.log(got / graph.widths)
        # As if all widths were 5% narrower, where one step of these narrow groups is 25% and more.
        assert best - utility <= 0.05 * weights.sum(), (got, best)
        assert all(getattr(graph.cost(got), name) <= most for name, most in budget.limits(graph.cost()).items())


def test_every_class_gets_its_share_of_the_resource() -> None:
    """The optimality condition: a class costs in proportion to its layers, for a small change of its widths."""
    graph = ranp.trace(UNet3D(1, 4, width=64), torch.zeros(1, 1, 16, 16, 16))
    widths = allocated_widths(
        graph, random_scores(graph, 0), ranp.Budget(macs=0.25), policy="balanced", **{"min_width": 1, "round_to": 1}
    )
    classes, _ = tied_groups(graph)
    elasticity = []
    for number in range(classes.max() + 1):
        changed = np.where(classes == number, widths * 1.01, widths.astype(float))
        sizes = graph.costs.axes @ np.append(changed, 1.0)
        more = (graph.costs.macs.factors * sizes[graph.costs.macs.axes].prod(axis=1)).sum()
        elasticity.append((more - graph.cost(widths).macs) / layers_per_group(graph)[classes == number].sum())
    inside = [value for number, value in enumerate(elasticity) if (widths < graph.widths)[classes == number].any()]
    assert len(inside) > 2
    assert max(inside) / min(inside) < 1.25, "one step of widths is 9%"


def test_a_thin_decoder_is_thinner() -> None:
    graph = ranp.trace(UNet3D(1, 4, width=32), torch.zeros(1, 1, 16, 16, 16))
    _, in_decoder = tied_groups(graph)
    shares = []
    for decoder in (1.0, 0.5, 0.25):
        widths = allocated_widths(
            graph,
            random_scores(graph, 0),
            ranp.Budget(macs=0.3),
            policy=Balanced(decoder=decoder),
            min_width=1,
            round_to=1,
        )
        shares.append((widths / graph.widths)[in_decoder].mean() / (widths / graph.widths)[~in_decoder].mean())
    assert shares[0] > shares[1] > shares[2]


def test_kept_channels_are_the_best_of_each_group() -> None:
    graph = pyramid(16, 8, 8, 24, 16, 8)
    scores = random_scores(graph, 5)
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=0.3), policy="balanced")
    for place, group in enumerate(graph.groups):
        found = scores.channels[graph.offsets[place] : graph.offsets[place + 1]]
        kept = plan.keep[group.name]
        assert min(found[list(kept)]) >= max(np.delete(found, kept), default=-1)
    assert plan.policy == "balanced"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("balanced", Balanced()),
        ("balanced(decoder=0.5)", Balanced(decoder=0.5)),
        ("balanced(use_scores=True, decoder=2)", Balanced(decoder=2, use_scores=True)),
    ],
)
def test_policies_by_name(text: str, policy: Balanced) -> None:
    assert policy_named(text) == policy_named(policy) == policy
    assert policy_named(str(policy)) == policy


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("balancd", "^policy: 'balancd' is unknown; did you mean 'balanced'"),
        ("balanced(decode=1)", "^policy: balanced has no option 'decode'; did you mean 'decoder'"),
        ("threshold(decoder=1)", "^policy: threshold has no option 'decoder'"),
        ("balanced(decoder=0)", "^Balanced: decoder: got 0; expected a positive number"),
        ("balanced(decoder=x)", "^Balanced: decoder: got 'x'; expected a positive number"),
        (None, "^policy: got None; expected a string or a Balanced"),
    ],
)
def test_policies_that_do_not_exist(wrong: Any, message: str) -> None:
    graph = pyramid(8, 8, 8, 8, 8, 8)
    with pytest.raises(InputError, match=message):
        ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(macs=0.5), policy=wrong)


def test_what_cannot_be_balanced() -> None:
    graph = pyramid(8, 8, 8, 8, 8, 8)
    with pytest.raises(BudgetError, match=r"^allocate: got macs=0.001; expected a feasible budget: macs >= "):
        ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(macs=0.001), policy="balanced")
    negative = scores_of(graph, -np.arange(48.0))
    with pytest.raises(InputError, match=r"^scores: weights of groups need scores that are not negative"):
        ranp.allocate(graph, negative, ranp.Budget(macs=0.5), policy="balanced(use_scores=true)")
