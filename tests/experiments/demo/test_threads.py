"""The number of threads: the quicker one, and put back afterwards."""

import time
from collections.abc import Iterator

import pytest
import torch

from ranp.experiments.demo import _threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("slow", [1, 2])
def test_the_quicker_number_is_taken_and_put_back(slow: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_trial", lambda: time.sleep(0.05 * (torch.get_num_threads() == slow)))
    with _threads.quickest_threads(rounds=2) as chosen:
        assert chosen == torch.get_num_threads() == 3 - slow
    assert torch.get_num_threads() == 2


def test_threads_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_trial", lambda: time.sleep(0.05 * (torch.get_num_threads() - 1)))

    def fail() -> None:
        with _threads.quickest_threads(rounds=1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.get_num_threads() == 2


def test_a_trial_is_short() -> None:
    _threads._trial()
    start = time.perf_counter()
    _threads._trial()
    assert time.perf_counter() - start < 2
