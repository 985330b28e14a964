"""Training samples as a function of the seed and the place in the stream alone.

Whoever starts in the middle gets what would have come there: with any number of worker processes, and after a crash.
"""

import hashlib
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler


def derive_seed(seed: int, *place: object) -> int:
    """A seed for one place of an experiment; seeds of different places have nothing in common.

    Example:
        >>> [derive_seed(0, "step", 1) == derive_seed(0, "step", step) for step in (1, 2)]
        [True, False]
    """
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class ResumableSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed of the draw): one pass in random order after the other, without a seam.

    With several processes each gets its share of every step's batch, so that together they see what one would see
    with a batch as many times as large.

    Args:
        count: Samples of the data set.
        batch: Samples a batch of this process.
        seed: Of the orders and of the draws.
        start: First step.
        stop: Step to stop before.
        rank: Of this process.
        world: Number of processes.

    Example:
        >>> [[index for index, _ in batch] for batch in ResumableSampler(3, 2, seed=0, start=0, stop=3)]
        [[1, 0], [2, 0], [1, 2]]
        >>> [[index for index, _ in batch] for batch in ResumableSampler(3, 2, seed=0, start=1, stop=2)]
        [[2, 0]]
    """

    def __init__(
        self, count: int, batch: int, *, seed: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch, self.seed = count, batch, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch
            yield [
                (self._index(number), derive_seed(self.seed, "draw", number))
                for number in range(first, first + self.batch)
            ]

    def _index(self, number: int) -> int:
        epoch, place = divmod(number, self.count)
        if self._order[0] != epoch:
            generator = Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._order = epoch, torch.randperm(self.count, generator=generator).tolist()
        return self._order[1][place]


class SeededDataset(Dataset[Any]):
    """A data set whose random draws follow from the seed that comes with the index."""

    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples = samples

    def __getitem__(self, index: tuple[int, int]) -> Any:
        place, seed = index
        with torch.random.fork_rng(devices=[]):
            # Not `torch.manual_seed`: that one seeds the GPUs, too.
            torch.default_generator.manual_seed(seed)
            return self.samples[place]


def resumable_loader(samples: Dataset[Any], stream: ResumableSampler, *, workers: int, pin: bool) -> "DataLoader[Any]":
    """Load the batches of a stream."""
    return DataLoader(SeededDataset(samples), batch_sampler=stream, num_workers=workers, pin_memory=pin)


def length(samples: Dataset[Any]) -> int:
    """Number of samples."""
    assert isinstance(samples, Sized)
    return len(samples)
