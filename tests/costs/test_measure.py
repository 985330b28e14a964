"""Measured seconds and bytes: the larger network takes more, and nothing is changed."""

import sys
import time
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ranp.costs.measure import peak_step_bytes, step_seconds
from ranp.errors import RanpError
from ranp.models import UNet3D

SGD = partial(torch.optim.SGD, lr=0.1)
MIB = 2**20


class Slow(nn.Module):
    """Waits, then is the identity times a parameter."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return self.scale * x


def _batch(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(shape), torch.ones(shape)


def test_step_seconds_are_those_of_a_step() -> None:
    models = {"slow": Slow(0.2), "quick": Slow(0.02)}
    seconds = step_seconds(models, _batch(1), nn.functional.mse_loss, SGD, repeats=3)
    assert list(seconds) == ["slow", "quick"]
    # Three times as long at most, even on a busy machine.
    assert 0.2 <= seconds["slow"] < 0.6
    assert 0.02 <= seconds["quick"] < 0.2


def test_models_take_turns() -> None:
    order: list[str] = []

    class Noting(Slow):
        def __init__(self, name: str) -> None:
            super().__init__(0)
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            order.append(self.name)
            return super().forward(x)

    models = {"a": Noting("a"), "b": Noting("b")}
    step_seconds(models, _batch(1), nn.functional.mse_loss, SGD, repeats=2)
    assert order == ["a", "b"] * 3


def test_timing_stops_at_its_limit_but_times_one_step() -> None:
    steps: list[int] = []

    class Counting(Slow):
        def forward(self, x: Tensor) -> Tensor:
            steps.append(1)
            return super().forward(x)

    seconds = step_seconds(
        {"only": Counting(0.05)}, _batch(1), nn.functional.mse_loss, SGD, repeats=50, limit_seconds=0.01
    )
    assert len(steps) == 2
    assert seconds["only"] >= 0.05


def test_timing_leaves_the_weights_alone() -> None:
    model = nn.Linear(3, 3)
    before = model.weight.detach().clone()
    step_seconds({"only": model}, _batch(2, 3), nn.functional.mse_loss, SGD, repeats=1)
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None


def test_peak_counts_weights_gradients_and_optimizer_state() -> None:
    size = 48 * MIB
    width = int((size / 4) ** 0.5)
    models = {"large": nn.Linear(width, width, bias=False), "small": nn.Linear(width, 1, bias=False)}
    # One row, so activations are nothing; momentum makes a third copy, as large as weights and gradients.
    optimizer = partial(torch.optim.SGD, lr=1e-9, momentum=0.9)
    peaks = peak_step_bytes(models, (torch.ones(1, width), torch.ones(1, 1)), nn.functional.mse_loss, optimizer)
    assert peaks["large"] == pytest.approx(3 * size, rel=0.25)
    assert peaks["small"] < size / 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other allocators keep what is freed")
def test_peak_is_the_same_every_time() -> None:
    batch = torch.ones(1, 1, 32, 32, 32), torch.ones(1, 3, 32, 32, 32)
    models = {f"{time}": UNet3D(1, 3, width=8, levels=3) for time in range(3)}
    peaks = peak_step_bytes(models, batch, nn.functional.mse_loss, SGD).values()
    assert max(peaks) - min(peaks) < 1 * MIB


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(RanpError, match=r"peak memory of wrong: the training step .*: RuntimeError.*mat1 and mat2"):
        peak_step_bytes({"wrong": nn.Linear(3, 3)}, _batch(1, 2), nn.functional.mse_loss, SGD)
