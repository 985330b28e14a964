"""Labelled volumes in NIfTI files: read and checked by one function, cached and augmented by MONAI, written."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ranp.errors import DataError, first_line
from ranp.experiments.data._base import Progress, Sample
from ranp.experiments.data._draws import drawn_seed
from ranp.experiments.data._problems import Problem, Report, fail, is_there
from ranp.optional import optional_import

AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Case:
    """One scan and its labels, not yet read.

    Attributes:
        name: Of the case.
        images: Files of the scan; their channels follow each other.
        label: File of the labels.
        channels: How many channels the images must have together.
        allowed: The values that a label may have.
    """

    name: str
    images: tuple[Path, ...]
    label: Path
    channels: int
    allowed: frozenset[int]

    @property
    def files(self) -> tuple[Path, ...]:
        """Images and label."""
        return (*self.images, self.label)


def read_case(case: Case, report: Report = fail) -> dict[str, Any] | None:
    """Read a case's files with MONAI and report all that is wrong with them.

    Args:
        case: What to read.
        report: Takes the problems.

    Returns:
        `image` `(C, X, Y, Z)` and `label` `(1, X, Y, Z)`, float tensors that know their orientation; None if there
        was a problem.
    """
    problems: list[Problem] = []
    volumes = [_read_volume(path, problems.append) for path in case.files]
    problems += _faults(case, dict(zip(case.files, volumes, strict=True)))
    for problem in problems:
        report(problem)
    whole = [volume for volume in volumes if volume is not None]
    return None if problems else {"image": torch.cat(whole[:-1]), "label": whole[-1]}


def _faults(case: Case, volumes: dict[Path, Tensor | None]) -> Iterator[Problem]:
    """What is wrong with volumes that could be read, each by itself and side by side."""
    read = {path: volume for path, volume in volumes.items() if volume is not None}
    shapes = Counter(volume.shape[1:] for volume in read.values()).most_common(1)
    for path, volume in read.items():
        if volume.shape[1:] != shapes[0][0]:
            yield Problem(path, f"shape {_times(volume.shape[1:])}", f"{_times(shapes[0][0])} as beside it", AGAIN)
        if path != case.label and volume.min() == volume.max():
            yield Problem(path, "one value everywhere", "a scan", AGAIN)
    images = [read[path] for path in case.images if path in read]
    channels = sum(map(len, images))
    if len(images) == len(case.images) and channels != case.channels:
        yield Problem(case.images[0], f"{channels} channels", f"{case.channels} in this data set", AGAIN)
    if (label := read.get(case.label)) is not None:
        if len(label) != 1:
            yield Problem(case.label, f"{len(label)} channels", "one label a voxel", AGAIN)
        if wrong := sorted(set(label.unique().tolist()) - case.allowed):
            listed = ", ".join(f"{value:g}" for value in wrong[:5])
            allowed = ", ".join(map(str, sorted(case.allowed)))
            yield Problem(case.label, f"labels {listed}", f"labels among {allowed}", AGAIN)


def _read_volume(path: Path, report: Report) -> Tensor | None:
    """Read one file as `(C, X, Y, Z)`, None if it cannot be used."""
    if not is_there(path, report):
        return None
    data, transforms = optional_import("monai.data", "data"), optional_import("monai.transforms", "data")
    # The reader itself, not `LoadImage`: that one goes on to try readers of other formats, and speaks of those.
    reader = data.NibabelReader()
    try:
        values, meta = reader.get_data(reader.read(str(path)))
        volume: Tensor = data.MetaTensor.ensure_torch_and_prune_meta(values.astype(np.float32), meta)
        volume = transforms.EnsureChannelFirst()(volume)
    except MemoryError:
        raise
    # Whatever a damaged file makes a reader raise: it means that the file cannot be read.
    except Exception as error:
        reason = first_line(error)
        report(Problem(path, f"a file that cannot be read ({reason})", "a NIfTI volume", AGAIN))
        return None
    if volume.ndim != 4:
        report(Problem(path, f"{volume.ndim - 1} dimensions", "a volume of three", AGAIN))
        return None
    if not bool(torch.isfinite(volume).all()):
        report(Problem(path, "values that are not finite", "finite values", AGAIN))
        return None
    return volume


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class Volumes(Dataset[Sample]):
    """Cases as tensors: what never changes is done once and kept, what is drawn is drawn anew each time.

    Args:
        cases: What to read.
        fixed: MONAI's dictionary transforms that give the same result every time.
        drawn: Those that draw at random.
        cache: Fraction of the cases to keep in memory; they are read now.
        progress: Told of the cases read.
    """

    def __init__(
        self, cases: Sequence[Case], fixed: Sequence[Any], drawn: Sequence[Any], cache: float, progress: Progress
    ) -> None:
        transforms, data = optional_import("monai.transforms", "data"), optional_import("monai.data", "data")
        plain = transforms.EnsureTyped(keys=("image", "label"), dtype=(torch.float32, torch.uint8), track_meta=False)
        self._drawn = transforms.Compose([*drawn, plain]) if drawn else None
        # As one of MONAI's transforms: the cache ends before the first that is not.
        read = transforms.Lambda(func=read_case, track_meta=False)
        self._cached = data.CacheDataset(
            list(cases),
            transforms.Compose([read, *fixed, plain]),
            cache_rate=cache,
            copy_cache=False,  # No transform writes into what it is given.
            runtime_cache=True,
        )
        self._fill(progress)

    def __len__(self) -> int:
        return len(self._cached)

    def __getitem__(self, index: int) -> Sample:
        case = self._load(index)
        if self._drawn is not None:
            # MONAI's own state would be the same in every worker process; torch's is not.
            self._drawn.set_random_state(seed=drawn_seed())
            with _without_history():
                case = self._drawn(case)
        # A copy: where nothing was drawn, it is the kept volume itself.
        return case["image"].clone(memory_format=torch.contiguous_format), case["label"][0].long()

    def _fill(self, progress: Progress) -> None:
        total = self._cached.cache_num
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            for done, _ in enumerate(pool.map(self._load, range(total)), start=1):
                progress("read volumes", done, total)
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, index: int) -> Any:
        try:
            return self._cached[index]
        except RuntimeError as error:  # How MONAI passes on what a transform raises.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, DataError):
                cause = cause.__cause__
            raise cause or error from None


@contextmanager
def _without_history() -> Iterator[None]:
    """Keep MONAI from writing down what is done to each tensor, which takes longer than doing it."""
    data = optional_import("monai.data", "data")
    before = data.get_track_meta()
    data.set_track_meta(False)
    try:
        yield
    finally:
        data.set_track_meta(before)


def write_volume(path: Path, volume: np.ndarray[Any, Any]) -> None:
    """Write `(X, Y, Z)` on a 1 mm grid."""
    nibabel = optional_import("nibabel", "data")
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(path)


Ball = Callable[[tuple[float, ...], float], np.ndarray[Any, np.dtype[np.bool_]]]


def balls(shape: Sequence[int]) -> Ball:
    """A function that marks the voxels of a ball, or of an ellipsoid that fits a box of this shape's proportions.

    Args:
        shape: Of the volume.

    Returns:
        Function of the centre and the radius, both in fractions of the volume.

    Example:
        >>> balls((3, 3, 3))((0.5, 0.5, 0.5), 0.34).sum()  # the middle voxel and its six neighbours
        np.int64(7)
    """
    grid = np.stack(np.meshgrid(*((np.arange(size) + 0.5) / size for size in shape), indexing="ij"))

    def ball(centre: tuple[float, ...], radius: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
        distance = np.linalg.norm(grid.T - np.asarray(centre), axis=-1).T
        return np.asarray(distance < radius)

    return ball
