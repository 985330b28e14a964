"""The race is fair: equal clocks, turns, and evaluations that cost no training time."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from ranp.experiments.demo._loop import Step
from ranp.experiments.demo._race import Runner, race, tissue_dice
from ranp.experiments.demo._settings import Settings


def _steps(each: float, end: float) -> Iterator[Step]:
    """A training whose steps take a given time on a made-up clock."""
    index, clock = 0, 0.0
    while clock < end:
        index, clock = index + 1, clock + each
        yield Step(index, 1.0, clock)


def _race(checks: int = 4, seconds: float = 10.0) -> tuple[list[Runner], list[tuple[str, int, int]]]:
    runners = [
        Runner("full", nn.Conv3d(1, 4, 1), _steps(3.0, seconds)),
        Runner("pruned", nn.Conv3d(1, 4, 1), _steps(0.5, seconds)),
    ]
    told: list[tuple[str, int, int]] = []
    patches = torch.randn(2, 1, 4, 4, 4), torch.randint(0, 4, (2, 1, 4, 4, 4))
    race(runners, patches, seconds=seconds, checks=checks, tell=lambda *what: told.append(what))
    return runners, told


def test_both_train_for_the_same_time_to_within_a_step() -> None:
    full, pruned = _race()[0]
    assert full.last == Step(4, 1.0, 12.0)
    assert pruned.last == Step(20, 1.0, 10.0)


def test_evaluations_fall_on_the_same_times_to_within_a_step() -> None:
    full, pruned = _race()[0]
    assert [point["seconds"] for point in pruned.curve] == [2.5, 5.0, 7.5, 10.0]
    assert [point["seconds"] for point in full.curve] == [3.0, 6.0, 9.0, 12.0]
    assert [point["steps"] for point in pruned.curve] == [5, 10, 15, 20]


def test_a_step_longer_than_the_interval_is_not_repeated() -> None:
    full, _ = _race(checks=20)[0]
    assert full.last.index == 4
    assert len(full.curve) == 20


def test_progress_is_told_for_both_up_to_the_end() -> None:
    told = _race()[1]
    assert {what for what, _, _ in told} == {"train the full network", "train the pruned network"}
    assert told[-1][1:] == (10000, 10000)
    assert all(done <= total for _, done, total in told)


def test_the_mean_leaves_the_background_out() -> None:
    dice = tissue_dice(torch.tensor([1, 1, 2, 3]), torch.tensor([0, 1, 2, 3]))
    assert dice["background"] == 0
    assert dice["grey"] == pytest.approx(2 / 3)
    assert dice["mean"] == pytest.approx((2 / 3 + 1 + 1) / 3)


def test_the_time_that_is_left_is_shared_and_never_too_short() -> None:
    settings = Settings(total_seconds=100, reserved_seconds=10, least_seconds=5, checks=10)
    assert settings.training_seconds(elapsed=20, evaluation=3) == 20
    assert settings.training_seconds(elapsed=300, evaluation=3) == 5
