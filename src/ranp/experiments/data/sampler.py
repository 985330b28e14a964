"""Training samples that depend only on the seed and the position in the sequence of batches.

Training that is resumed therefore sees the same samples as training that was never interrupted, with any number of
worker processes.
"""

import hashlib
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler


def derive_seed(seed: int, *place: object) -> int:
    """A seed for one place of an experiment, independent of those of other places."""
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def sample_seed() -> int:
    """A seed for the random numbers of one sample, drawn from torch's global generator."""
    return int(torch.randint(2**31, ()))


def sample_generator() -> Generator:
    """A generator for the random numbers of one sample, seeded from torch's global generator."""
    return Generator().manual_seed(sample_seed())


class ResumableSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `(index, seed)` pairs: endless epochs in random order; a batch may span two epochs.

    With several processes, each gets its part of every step's global batch: together they see what one process would
    see with a batch `world` times as large.

    Args:
        count: Number of samples of the data set.
        batch: Samples per batch of this process.
        seed: Random seed.
        start: First step.
        stop: Step to stop before.
        rank: Index of this process.
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
            numbers = range(first, first + self.batch)
            yield [(self._index(number), derive_seed(self.seed, "draw", number)) for number in numbers]

    def _index(self, number: int) -> int:
        epoch, position = divmod(number, self.count)
        if self._order[0] != epoch:
            generator = Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._order = epoch, torch.randperm(self.count, generator=generator).tolist()
        return self._order[1][position]


class SeededDataset(Dataset[Any]):
    """A data set indexed with `(index, seed)` pairs: the seed determines the random augmentation of the sample."""

    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples = samples

    def __getitem__(self, item: tuple[int, int]) -> Any:
        index, seed = item
        with torch.random.fork_rng(devices=[]):
            # Not `torch.manual_seed`, which also seeds the GPUs.
            torch.default_generator.manual_seed(seed)
            return self.samples[index]


def resumable_loader(samples: Dataset[Any], sampler: ResumableSampler, *, workers: int, pin: bool) -> "DataLoader[Any]":
    """Load the batches of a sampler with a number of worker processes; `pin` copies them to pinned memory, for GPUs."""
    return DataLoader(SeededDataset(samples), batch_sampler=sampler, num_workers=workers, pin_memory=pin)


def sample_count(samples: Dataset[Any]) -> int:
    """Number of samples of a data set."""
    assert isinstance(samples, Sized)
    return len(samples)
