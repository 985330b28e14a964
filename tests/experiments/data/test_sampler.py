"""The sampler: every sample once per epoch, and the same batches wherever it starts."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from ranp.experiments.data.sampler import ResumableSampler, SeededDataset, derive_seed, resumable_loader

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

counts = st.integers(1, 20)


def numbers(count: int, batch: int, start: int, stop: int, **more: int) -> list[list[tuple[int, int]]]:
    return list(ResumableSampler(count, batch, seed=5, start=start, stop=stop, **more))


@settings(max_examples=50, deadline=None)
@given(counts, st.integers(1, 7), st.integers(0, 9), st.integers(0, 9))
def test_a_later_start_gives_the_same_batches(count: int, batch: int, start: int, more: int) -> None:
    whole = numbers(count, batch, 0, start + more)
    assert whole[start:] == numbers(count, batch, start, start + more)
    assert len(ResumableSampler(count, batch, seed=5, start=start, stop=start + more)) == more


@settings(max_examples=50, deadline=None)
@given(counts, st.integers(1, 7), st.integers(1, 4))
def test_every_epoch_contains_every_sample_once(count: int, batch: int, world: int) -> None:
    steps = -(-3 * count // (batch * world))
    parts = [numbers(count, batch, 0, steps, rank=rank, world=world) for rank in range(world)]
    flat = [index for step in range(steps) for part in parts for index, _ in part[step]]
    for epoch in range(3):
        assert sorted(flat[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_processes_split_the_batches_of_one_process() -> None:
    one = numbers(11, 6, 0, 5)
    shared = [numbers(11, 2, 0, 5, rank=rank, world=3) for rank in range(3)]
    assert one == [[entry for part in shared for entry in part[step]] for step in range(5)]


def test_orders_and_seeds_differ_between_epochs_and_seeds() -> None:
    first, second = numbers(50, 50, 0, 2)
    other = next(iter(ResumableSampler(50, 50, seed=6, start=0, stop=1)))
    orders = [[index for index, _ in batch] for batch in (first, second, other)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert len({seed for batch in (first, second, other) for _, seed in batch}) == 150


class Noise(Dataset[torch.Tensor]):
    def __getitem__(self, index: Any) -> torch.Tensor:
        return torch.rand(3) + index


def test_random_numbers_do_not_depend_on_the_workers() -> None:
    def batches(workers: int, start: int) -> list[torch.Tensor]:
        sampler = ResumableSampler(5, 2, seed=0, start=start, stop=4)
        return list(resumable_loader(Noise(), sampler, workers=workers, pin=False))

    before = torch.get_rng_state()
    plain = batches(0, 0)
    torch.testing.assert_close(batches(2, 0), plain, rtol=0, atol=0)
    torch.testing.assert_close(batches(0, 2), plain[2:], rtol=0, atol=0)
    assert not torch.equal(plain[0][0] % 1, plain[0][1] % 1)
    torch.set_rng_state(before)
    SeededDataset(Noise())[0, 7]
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_are_golden() -> None:
    """A run started by an older version must resume with the same samples."""
    assert derive_seed(0, "step", 1) == 4413158142644703930
    assert [[index for index, _ in batch] for batch in numbers(5, 3, 0, 2)] == [[1, 2, 3], [0, 4, 3]]
