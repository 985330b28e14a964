"""The loop: when it stops, what it counts, and that it learns."""

import itertools
import time

import pytest
import torch
from torch import Tensor, nn

from ranp.errors import InputError
from ranp.experiments.demo._loop import Step, train
from ranp.experiments.losses import warm_up_then_decay


def _data(count: int = 10**4) -> itertools.islice:
    x = torch.linspace(-1, 1, 16)[:, None]
    return itertools.islice(itertools.repeat((x, 3 * x + 1)), count)


def _loop(model: nn.Module, rate: float = 0.1, batches: object = None, **limits: float) -> list[Step]:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    return list(train(model, batches or _data(), nn.functional.mse_loss, optimizer, **limits))


def test_it_learns_a_line() -> None:
    model = nn.Linear(1, 1)
    steps = _loop(model, rate=0.5, steps=200)
    assert steps[-1].loss < 1e-4 < steps[0].loss
    assert (model.weight.item(), model.bias.item()) == pytest.approx((3, 1), abs=0.02)


def test_a_step_is_the_update_by_hand() -> None:
    model = nn.Linear(1, 1)
    x, y = next(iter(_data()))
    loss = nn.functional.mse_loss(model(x), y)
    gradient = torch.autograd.grad(loss, model.weight)[0]
    expected = model.weight.detach() - 0.1 * 0.25 * gradient
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = next(train(model, _data(), nn.functional.mse_loss, optimizer, steps=1, schedule=lambda _: 0.25))
    assert step.index == 1
    assert step.loss == pytest.approx(loss.item())
    torch.testing.assert_close(model.weight.detach(), expected)


def test_it_stops_after_the_steps_or_with_the_batches() -> None:
    assert [step.index for step in _loop(nn.Linear(1, 1), steps=3)] == [1, 2, 3]
    assert len(_loop(nn.Linear(1, 1), batches=_data(2), steps=3)) == 2


def test_it_stops_by_the_clock_and_not_before() -> None:
    steps = _loop(nn.Linear(1, 1), seconds=0.05)
    assert steps[-1].seconds >= 0.05 > steps[-2].seconds


def test_time_between_steps_does_not_count() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clocks = []
    for step in train(model, _data(), nn.functional.mse_loss, optimizer, steps=3):
        clocks.append(step.seconds)
        time.sleep(0.3)
    assert clocks == sorted(clocks)
    assert 0 < clocks[-1] < 0.3


def test_time_to_fetch_a_batch_counts() -> None:
    def slow() -> object:
        for batch in _data(2):
            time.sleep(0.05)
            yield batch

    assert _loop(nn.Linear(1, 1), batches=slow(), steps=2)[-1].seconds >= 0.1


def test_the_model_is_in_training_mode_even_if_evaluated_in_between() -> None:
    seen: list[bool] = []

    class Watch(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.training)
            return super().forward(x)

    model = Watch(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in train(model, _data(), nn.functional.mse_loss, optimizer, steps=3):
        model.eval()
    assert seen == [True, True, True]


def test_rate_follows_the_schedule_of_the_share_that_is_done() -> None:
    shares: list[float] = []

    def schedule(share: float) -> float:
        shares.append(share)
        return 1 - share

    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    rates = [
        optimizer.param_groups[0]["lr"]
        for _ in train(model, _data(), nn.functional.mse_loss, optimizer, steps=4, schedule=schedule)
    ]
    assert shares == [0, 0.25, 0.5, 0.75]
    assert rates == pytest.approx([0.2, 0.15, 0.1, 0.05])


def test_schedule_rises_then_falls_to_zero() -> None:
    factors = [warm_up_then_decay(share / 100) for share in range(101)]
    top = factors.index(max(factors))
    assert 0 < factors[0] < 0.1
    assert 0 < top <= 10
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == 0
    assert warm_up_then_decay(1.2) == 0


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(InputError, match="loss of nan at step 1"):
        _loop(model, steps=1)
