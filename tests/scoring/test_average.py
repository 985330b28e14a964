"""Scoring stops once the ranking is stable, and records every comparison."""

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import ranp
from ranp.errors import InputError
from ranp.scores import Scores
from ranp.scoring._average import Ranking, averaged, rank_correlation


def scored_on(numbers: Iterable[int], **how: Any) -> Scores:
    """Scores of the same small network on the batches with these numbers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 1))
    batches = [(torch.randn(2, 2, 6, 6), torch.randn(2, 2, 4, 4)) for _ in range(40)]
    graph = ranp.trace(model, batches[0][0])
    return ranp.score(model, graph, (batches[number] for number in numbers), nn.functional.mse_loss, **how)


def scored(stop_at_correlation: float | None, importance: str = "parameter", count: int = 40, **more: object) -> Scores:
    return scored_on(range(count), importance=importance, stop_at_correlation=stop_at_correlation, **more)


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_it_stops_at_the_first_comparison_that_is_good_enough(importance: str) -> None:
    complete = scored(None, importance)
    assert complete.batches == 40
    assert [count for count, _ in complete.stability] == [2, 4, 8, 16, 32]
    threshold = sorted(value for _, value in complete.stability)[2]
    expected = next(count for count, value in complete.stability if value >= threshold)
    stopped = scored(threshold, importance)
    assert stopped.batches == expected < 40
    assert stopped.stability == tuple(entry for entry in complete.stability if entry[0] <= expected)


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_what_it_compares_are_the_scores_of_so_many_batches(importance: str) -> None:
    first, second = (scored(None, importance, count=count) for count in (4, 8))
    expected = spearmanr(first.channels, second.channels).statistic
    assert dict(second.stability)[8] == pytest.approx(expected)
    stopped = scored(1e-9, importance)
    assert stopped.batches == 2
    np.testing.assert_array_equal(stopped.channels, scored(None, importance, count=2).channels)


def test_rank_correlation_agrees_with_another_implementation() -> None:
    random = np.random.default_rng(0)
    for levels in (3, 10, 10**6):
        first, second = random.integers(0, levels, (2, 50)).astype(float)
        assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation(np.ones(4), np.ones(4)) == 1


def test_only_powers_of_two_are_compared_and_nothing_is_averaged_elsewhere() -> None:
    ranking = Ranking(lambda layers: layers["a"], stop_at_correlation=None)
    counts = []

    class Stub:
        def __init__(self) -> None:
            self.totals: dict[str, Tensor] = {}

        def add(self, loss: Tensor) -> None:
            pass

        def importance(self, totals: Mapping[str, Tensor], batches: int) -> dict[str, np.ndarray[Any, Any]]:
            counts.append(batches)
            return {"a": np.arange(3.0)}

    averaged(repeat(torch.zeros(()), 10), Stub(), ranking, None)
    assert counts == [1, 2, 4, 8, 10]
    assert ranking.seen == [(2, 1.0), (4, 1.0), (8, 1.0)]


@pytest.mark.parametrize("stop_at_correlation", [0.0, 1.5, -1])
def test_an_impossible_rank_correlation_is_refused(stop_at_correlation: float) -> None:
    with pytest.raises(InputError, match="stop_at_correlation"):
        scored(stop_at_correlation)


def test_criteria_without_importance_have_no_stability() -> None:
    assert scored(0.9, criterion="random").stability == ()
