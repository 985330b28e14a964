"""What all data sets have in common: find the samples, read one, check them all, open them for training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor
from torch.utils.data import Dataset

from ranp.experiments.data._problems import Problem, Report, fail, is_there

Sample = tuple[Tensor, Tensor]
"""Inputs and targets."""

Model = Callable[[Tensor], Tensor]
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

IGNORED = -100
"""The target that `torch.nn.functional.cross_entropy` ignores by default."""


class Found(Protocol):
    """A sample that is known by its files, not yet read."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the sample."""


class Metric(Protocol):
    """Figures that add up over batches, as those of torchmetrics do; in all of them higher is better."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add one batch: outputs of `DataBundle.predict` and the targets beside its inputs."""

    def compute(self) -> dict[str, Any]:
        """Named figures over all batches so far."""

    def reset(self) -> None:
        """Forget all batches."""

    def to(self, device: Any) -> Any:
        """Move the sums to a device."""


def forward(model: Model, inputs: Tensor) -> Tensor:
    """Predict in the plain way: call the model once."""
    return model(inputs)


@dataclass(frozen=True, eq=False)
class DataBundle:
    """A data set that is ready to train with: two parts and what a training loop must know about them.

    Draws of `train` (crops, flips) come from torch's global random state, which a `DataLoader` seeds anew in each
    of its worker processes.

    Attributes:
        train: Gives `(inputs, targets)`, each time drawn anew; all of one shape.
        evaluation: Gives `(inputs, targets)`, always the same.
        input_shape: Of the inputs of `train`: `(C, D, H, W)`, or `(C, H, W)` for a 2D network.
        class_names: Of every output channel of a model; a target is an index into them.
        metric: Makes an empty metric.
        primary_metric: The figure of the metric to judge a model by; higher is better.
        predict: Outputs for a batch of `evaluation`, of a model in evaluation mode.
        ignore_index: Target that the loss must leave out.
        evaluation_batch: Largest batch that `evaluation` can be stacked in; None if there is no limit.
        skipped: Problems for which samples were left out.
    """

    train: Dataset[Sample]
    evaluation: Dataset[Sample]
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


S = TypeVar("S", bound=Found)


class DataSet(ABC, Generic[S]):
    """A kind of data set: a frozen dataclass of settings that knows one layout of files.

    A new kind says how samples are found, read and made ready, and how a small folder of them is written; checking and
    opening follow from that.
    """

    # Where pydantic makes one of a recipe, a misspelt setting is an error, not ignored.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    @abstractmethod
    def find(self, folder: Path, report: Report) -> tuple[list[S], list[S]]:
        """Samples for training and for evaluation, without reading them; reports what the layout lacks."""

    @abstractmethod
    def read(self, sample: S, report: Report) -> Any:
        """Read a sample to its end and report all that is wrong with it; None if it is of no use."""

    @abstractmethod
    def prepare(self, folder: Path, train: list[S], evaluation: list[S], progress: Progress) -> DataBundle:
        """Make found samples ready for training."""

    @abstractmethod
    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Write a small data set of this layout that can be learned.

        Args:
            folder: A path where nothing is yet.
            count: How many samples; of which kind, each data set says.
            seed: Of all that is drawn; the same seed writes the same samples.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
        """

    def check(self, folder: Path | str, progress: Progress | None = None) -> list[Problem]:
        """Read every file and list what is missing or damaged.

        Args:
            folder: Of the data set.
            progress: Told after every sample.

        Returns:
            One problem for each fault; none if all is well.
        """
        problems: list[Problem] = []
        train, evaluation = self.find(Path(folder), problems.append)
        total = len(train) + len(evaluation)
        if not total and not problems:
            problems.append(_empty(Path(folder)))
        for done, sample in enumerate(chain(train, evaluation), start=1):
            self.read(sample, problems.append)
            if progress:
                progress("check files", done, total)
        return problems

    def open(self, folder: Path | str, *, skip_damaged: bool = False, progress: Progress | None = None) -> DataBundle:
        """Open a folder for training and evaluation.

        Args:
            folder: Of the data set.
            skip_damaged: Check every file first and leave out the samples that have a problem.
            progress: Told of files that are read, where that takes long.

        Returns:
            Both parts, and what a training loop must know about them.

        Raises:
            DataError: A file is missing or damaged. One that cannot be read to its end is found when its sample is
                asked for, if it is not read now.
        """
        folder, progress = Path(folder), progress or _quiet
        skipped = self.check(folder, progress) if skip_damaged else []
        damaged = {problem.path for problem in skipped}
        parts: list[list[S]] = []
        for found in self.find(folder, _ignore if skip_damaged else fail):
            kept = [sample for sample in found if damaged.isdisjoint(sample.files)]
            for path in (path for sample in kept for path in sample.files):
                is_there(path, fail)
            if not kept:
                raise (skipped[0] if skipped else _empty(folder)).error()
            parts.append(kept)
        train, evaluation = parts
        return replace(self.prepare(folder, train, evaluation, progress), skipped=tuple(skipped))


def _quiet(what: str, done: int, total: int) -> None:
    pass


def _ignore(problem: Problem) -> None:
    pass


def _empty(folder: Path) -> Problem:
    return Problem(folder, "too few samples", "samples both for training and for evaluation", "look at the folder")
