"""What all data sets have in common: finding the samples, reading one, checking all, opening them for training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ranp.errors import InputError
from ranp.experiments.data._files import OnProblem, Problem, fail, file_exists
from ranp.optional import optional_import
from ranp.progress import Progress, no_progress

TensorPair = tuple[Tensor, Tensor]
"""Inputs and targets."""

Model = Callable[[Tensor], Tensor]

IGNORED = -100
"""The target that `torch.nn.functional.cross_entropy` ignores by default."""


def at_least(minimum: int, **settings: int | Sequence[int]) -> None:
    """Raise an `InputError` if one of the settings is, or contains, a number below the minimum."""
    for name, setting in settings.items():
        if min([setting] if isinstance(setting, int) else setting) < minimum:
            raise InputError(name, f"must be at least {minimum}, but is {setting}")


def split_names(names: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Split names at random into two sorted parts, of which the second has this fraction: at least one, never all."""
    if not 0 < fraction < 1:
        raise InputError("validation", f"must be a fraction between 0 and 1, but is {fraction}")
    ordered = sorted(names)
    order = torch.randperm(len(ordered), generator=Generator().manual_seed(seed)).tolist()
    count = min(max(1, math.floor(len(ordered) * fraction + 0.5)), len(ordered) - 1)
    second = {ordered[index] for index in order[: max(count, 0)]}
    return [name for name in ordered if name not in second], sorted(second)


def metrics() -> ModuleType:
    """The module `metrics`, which needs an optional package."""
    optional_import("torchmetrics", "data")
    from ranp.experiments.data import metrics

    return metrics


class HasFiles(Protocol):
    """A sample that has not been read."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the sample."""


S = TypeVar("S", bound=HasFiles)


class LoadedSamples(Dataset[TensorPair], Generic[S]):
    """Samples that are read by a function at every access."""

    def __init__(self, samples: Sequence[S], load: Callable[[S], TensorPair]) -> None:
        self.samples, self.load = samples, load

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> TensorPair:
        return self.load(self.samples[index])


class Metric(Protocol):
    """A metric that accumulates over batches, as those of torchmetrics do; higher is better in all its values."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add one batch: outputs of `DataBundle.predict` and the targets."""

    def compute(self) -> dict[str, Any]:
        """Values by name, over all batches so far."""

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


class DataSet(ABC, Generic[S]):
    """A data set in a known file layout: a frozen dataclass of settings.

    A subclass implements how samples are found, read and prepared for training, and how a small synthetic data set is
    generated; `check` and `open` are built on these.

    Example:
        >>> import tempfile
        >>> from ranp.experiments.data import data_set
        >>> data = data_set("brats18")(crop=(8, 8, 8))
        >>> with tempfile.TemporaryDirectory() as place:
        ...     data.generate(Path(place, "new"), count=2, seed=0)
        ...     problems, bundle = data.check(Path(place, "new")), data.open(Path(place, "new"))
        >>> image, labels = bundle.train[0]
        >>> problems, image.shape, labels.shape
        ([], torch.Size([4, 8, 8, 8]), torch.Size([8, 8, 8]))
    """

    # pydantic reads this when a recipe creates a data set: a misspelled setting is an error.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @abstractmethod
    def find(self, folder: Path, on_problem: OnProblem) -> tuple[list[S], list[S]]:
        """Find the samples for training and evaluation without reading them, and the problems of the layout."""

    @abstractmethod
    def read(self, sample: S, on_problem: OnProblem) -> Any:
        """Read a sample completely and find its problems; None if there are any."""

    @abstractmethod
    def prepare(self, folder: Path, train: list[S], evaluation: list[S], progress: Progress) -> DataBundle:
        """Prepare samples that were found for training."""

    @abstractmethod
    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Write a small synthetic data set in this layout, which a network can learn, into a new folder.

        The same seed writes the same samples; each data set says what `count` counts.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
            InputError: Too few samples.
        """

    def check(self, folder: Path | str, progress: Progress = no_progress) -> list[Problem]:
        """Read every file and list what is missing or damaged; `progress` is called after every sample."""
        problems: list[Problem] = []
        train, evaluation = self.find(Path(folder), problems.append)
        samples = [*train, *evaluation]
        if not samples and not problems:
            problems.append(_too_few(Path(folder)))
        for done, sample in enumerate(samples, start=1):
            self.read(sample, problems.append)
            progress("check files", done, len(samples))
        return problems

    def open(self, folder: Path | str, *, skip_damaged: bool = False, progress: Progress = no_progress) -> DataBundle:
        """Open a folder for training and evaluation.

        With `skip_damaged` every file is checked first, and samples that have a problem are left out.

        Raises:
            DataError: A file is missing or damaged. Files that are not read now are checked when their sample is
                accessed.
        """
        folder = Path(folder)
        skipped = self.check(folder, progress) if skip_damaged else []
        damaged = {problem.path for problem in skipped}
        splits: list[list[S]] = []
        for found in self.find(folder, (lambda problem: None) if skip_damaged else fail):
            samples = [sample for sample in found if damaged.isdisjoint(sample.files)]
            for path in chain.from_iterable(sample.files for sample in samples):
                file_exists(path, fail)
            if not samples:
                raise (skipped[0] if skipped else _too_few(folder)).error()
            splits.append(samples)
        train, evaluation = splits
        return replace(self.prepare(folder, train, evaluation, progress), skipped=tuple(skipped))


def _too_few(folder: Path) -> Problem:
    return Problem(folder, "there are too few samples to train and to evaluate on", "is this the data set's folder?")
