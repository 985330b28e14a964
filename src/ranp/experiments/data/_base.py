"""What all data sets have in common: finding the samples, reading one, checking all, opening them for training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Generic, NoReturn, Protocol, TypeVar

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ranp.errors import DataError, InputError
from ranp.progress import Progress, no_progress

TensorPair = tuple[Tensor, Tensor]
"""Inputs and targets."""

Model = Callable[[Tensor], Tensor]

IGNORED = -100
"""The target that `torch.nn.functional.cross_entropy` ignores by default."""


@dataclass(frozen=True)
class Problem:
    """A fault in a file or folder of a data set.

    Attributes:
        path: The file or folder.
        message: What is wrong with it.
        hint: What to do about it.

    Example:
        >>> print(Problem(Path("a.pts"), "the file is missing", "unpack the archive again"))
        a.pts: the file is missing; unpack the archive again
    """

    path: Path
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> DataError:
        """The problem as an exception."""
        return DataError(str(self.path), self.message, hint=self.hint)


OnProblem = Callable[[Problem], object]
"""Called with each problem found: `fail`, to stop at the first, or a list's `append`."""


def fail(problem: Problem) -> NoReturn:
    """Raise the problem as an error.

    Raises:
        DataError: Always.
    """
    raise problem.error()


def file_exists(path: Path, on_problem: OnProblem, hint: str = "copy or unpack the data set again") -> bool:
    """Whether a file exists; it is a problem if not."""
    if path.is_file():
        return True
    on_problem(Problem(path, "the file is missing", hint))
    return False


def at_least_one(**settings: int | Sequence[int]) -> None:
    """Refuse sizes and counts below 1.

    Raises:
        InputError: One of the settings is, or contains, a number below 1.
    """
    for name, setting in settings.items():
        if min([setting] if isinstance(setting, int) else setting) < 1:
            raise InputError(name, f"must be at least 1, but is {setting}")


def split_names(names: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Split names at random; the same names and seed give the same split.

    Args:
        names: What to split, in any order.
        fraction: How much goes into the second part: at least one name, and never all.
        seed: Seed of the random split.

    Returns:
        The two parts, each sorted.

    Raises:
        InputError: The fraction is not within (0, 1).

    Example:
        >>> first, second = split_names(["d", "a", "c", "b"], 0.25, seed=0)
        >>> sorted(first + second), len(second)
        (['a', 'b', 'c', 'd'], 1)
    """
    if not 0 < fraction < 1:
        raise InputError("validation", f"must be a fraction between 0 and 1, but is {fraction}")
    ordered = sorted(names)
    order = torch.randperm(len(ordered), generator=Generator().manual_seed(seed)).tolist()
    count = min(max(1, math.floor(len(ordered) * fraction + 0.5)), len(ordered) - 1)
    second = {ordered[index] for index in order[: max(count, 0)]}
    return [name for name in ordered if name not in second], sorted(second)


def sample_seed() -> int:
    """A seed for the random numbers of one sample, drawn from torch's global generator."""
    return int(torch.randint(2**31, ()))


def sample_generator() -> Generator:
    """A generator for the random numbers of one sample, seeded from torch's global generator."""
    return Generator().manual_seed(sample_seed())


class HasFiles(Protocol):
    """A sample that has not been read, known by its files."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the sample."""


class Metric(Protocol):
    """A metric that accumulates over batches, as those of torchmetrics do; higher is better in all its values."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add one batch: outputs of `DataBundle.predict` and the targets."""

    def compute(self) -> dict[str, Any]:
        """Values by name, over all batches so far."""

    def reset(self) -> None:
        """Forget all batches."""

    def to(self, device: Any) -> Any:
        """Move the state to a device."""


def forward(model: Model, inputs: Tensor) -> Tensor:
    """Call the model once: how most data sets predict."""
    return model(inputs)


@dataclass(frozen=True, eq=False)
class DataBundle:
    """A data set that is ready for training: its two splits and what a training loop must know about them.

    Random augmentation of `train` uses torch's global generator, which a `DataLoader` seeds in each of its worker
    processes.

    Attributes:
        train: Pairs `(inputs, targets)`, randomly augmented at every access; all of one shape.
        evaluation: Pairs `(inputs, targets)`, always the same.
        input_shape: Shape of the inputs of `train`: `(C, D, H, W)`, or `(C, H, W)` for a 2D network.
        class_names: One name per output channel of a model; a target is an index into them.
        metric: Creates an empty metric.
        primary_metric: Name of the value of the metric to compare models by; higher is better.
        predict: Computes the outputs of a model in evaluation mode for a batch of `evaluation`.
        ignore_index: Target that the loss must ignore.
        evaluation_batch: Largest batch size for `evaluation`; None if there is no limit.
        skipped: Problems for which samples were left out.
    """

    train: Dataset[TensorPair]
    evaluation: Dataset[TensorPair]
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    metric: Callable[[], Metric]
    primary_metric: str
    predict: Callable[[Model, Tensor], Tensor] = forward
    ignore_index: int = IGNORED
    evaluation_batch: int | None = None
    skipped: tuple[Problem, ...] = ()

    @property
    def in_channels(self) -> int:
        """Input channels of a model for this data."""
        return self.input_shape[0]

    @property
    def classes(self) -> int:
        """Output channels of a model for this data."""
        return len(self.class_names)


S = TypeVar("S", bound=HasFiles)


class DataSet(ABC, Generic[S]):
    """A data set in a known file layout: a frozen dataclass of settings.

    A subclass implements how samples are found, read and prepared for training, and how a small synthetic data set is
    generated; `check` and `open` are built on these.
    """

    # pydantic reads this when a recipe creates a data set: a misspelled setting is an error.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @abstractmethod
    def find(self, folder: Path, on_problem: OnProblem) -> tuple[list[S], list[S]]:
        """Find the samples for training and for evaluation without reading them.

        Args:
            folder: Folder of the data set.
            on_problem: Called with each problem of the layout.
        """

    @abstractmethod
    def read(self, sample: S, on_problem: OnProblem) -> Any:
        """Read a sample completely.

        Args:
            sample: A sample that `find` returned.
            on_problem: Called with each problem of its files.

        Returns:
            The content, None if there was a problem.
        """

    @abstractmethod
    def prepare(self, folder: Path, train: list[S], evaluation: list[S], progress: Progress) -> DataBundle:
        """Prepare samples that were found for training."""

    @abstractmethod
    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Write a small synthetic data set in this layout, which a network can learn.

        Args:
            folder: A path that does not exist yet.
            count: Number of samples; each data set says which.
            seed: Random seed; the same seed writes the same samples.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
            InputError: Too few samples.
        """

    def check(self, folder: Path | str, progress: Progress = no_progress) -> list[Problem]:
        """Read every file and list what is missing or damaged.

        Args:
            folder: Folder of the data set.
            progress: Called after every sample.

        Returns:
            One problem per fault.
        """
        problems: list[Problem] = []
        train, evaluation = self.find(Path(folder), problems.append)
        total = len(train) + len(evaluation)
        if not total and not problems:
            problems.append(_too_few(Path(folder)))
        for done, sample in enumerate(chain(train, evaluation), start=1):
            self.read(sample, problems.append)
            progress("check files", done, total)
        return problems

    def open(self, folder: Path | str, *, skip_damaged: bool = False, progress: Progress = no_progress) -> DataBundle:
        """Open a folder for training and evaluation.

        Args:
            folder: Folder of the data set.
            skip_damaged: Check every file first and leave out the samples that have a problem.
            progress: Called while files are checked or read.

        Raises:
            DataError: A file is missing or damaged. Files that are not read now are checked when their sample is
                accessed.
        """
        folder = Path(folder)
        skipped = self.check(folder, progress) if skip_damaged else []
        damaged = {problem.path for problem in skipped}
        splits: list[list[S]] = []
        for found in self.find(folder, _ignore if skip_damaged else fail):
            samples = [sample for sample in found if damaged.isdisjoint(sample.files)]
            for path in chain.from_iterable(sample.files for sample in samples):
                file_exists(path, fail)
            if not samples:
                raise (skipped[0] if skipped else _too_few(folder)).error()
            splits.append(samples)
        train, evaluation = splits
        return replace(self.prepare(folder, train, evaluation, progress), skipped=tuple(skipped))


def _ignore(problem: Problem) -> None:
    pass


def _too_few(folder: Path) -> Problem:
    return Problem(folder, "there are too few samples to train and to evaluate on", "is this the data set's folder?")
