"""What is timed takes turns, and is repeated more often on a busy device."""

import itertools
import math

import pytest
import torch

from ranp.timing import Stopwatch


@pytest.mark.parametrize(
    ("factors", "limit_seconds", "rounds"),
    [((1.0, 1.0), math.inf, 3), ((1.0, 1.5), math.inf, 9), ((1.0, 1.5), 0, 3)],
    ids=["idle", "busy", "busy, no time left"],
)
def test_how_often(
    monkeypatch: pytest.MonkeyPatch, factors: tuple[float, float], limit_seconds: float, rounds: int
) -> None:
    factor, ran = itertools.cycle((factors[0], factors[1], factors[1])), []
    monkeypatch.setattr(Stopwatch, "timed", lambda watch, run: (run(), (next(factor), 0.0))[1])
    runs = {name: (lambda name=name: ran.append(name)) for name in "ab"}
    found = Stopwatch(torch.device("cpu")).in_turns(runs, limit_seconds)
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": rounds, "b": rounds}
    # Each runs once before it is timed.
    assert ran == ["a", "a", "b", "b"] * rounds
