"""Labeled volumes in NIfTI files: read, check, cache and augment with MONAI, write."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
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
from ranp.experiments.data._base import OnProblem, Problem, TensorPair, fail, file_exists, sample_seed
from ranp.optional import optional_import
from ranp.progress import Progress

AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Case:
    """The files of one patient's scan and its labels.

    Attributes:
        name: Name of the case.
        images: Files of the scan; their channels are concatenated.
        label: File of the labels.
        channels: Number of channels that the images must have together.
        labels: The allowed label values.
    """

    name: str
    images: tuple[Path, ...]
    label: Path
    channels: int
    labels: frozenset[int]

    @property
    def files(self) -> tuple[Path, ...]:
        """Images and label."""
        return (*self.images, self.label)


def read_case(case: Case, on_problem: OnProblem = fail) -> dict[str, Any] | None:
    """Read and check a case's files with MONAI.

    Args:
        case: The case to read.
        on_problem: Called with each problem.

    Returns:
        `image` `(C, X, Y, Z)` and `label` `(1, X, Y, Z)`, float tensors with orientation metadata; None if there was
        a problem.
    """
    problems: list[Problem] = []
    volumes = [_read_volume(path, problems.append) for path in case.files]
    problems += _faults(case, dict(zip(case.files, volumes, strict=True)))
    for problem in problems:
        on_problem(problem)
    if problems:
        return None
    *images, label = (volume for volume in volumes if volume is not None)
    return {"image": torch.cat(images), "label": label}


def _faults(case: Case, volumes: dict[Path, Tensor | None]) -> Iterator[Problem]:
    """What is wrong with the volumes that could be read, alone and compared with each other."""
    read = {path: volume for path, volume in volumes.items() if volume is not None}
    shapes = Counter(volume.shape[1:] for volume in read.values()).most_common(1)
    for path, volume in read.items():
        if volume.shape[1:] != shapes[0][0]:
            shape, usual = (" x ".join(map(str, sizes)) for sizes in (volume.shape[1:], shapes[0][0]))
            yield Problem(path, f"the shape is {shape}, but that of the case's other files is {usual}", AGAIN)
        if path != case.label and volume.min() == volume.max():
            yield Problem(path, "all voxels have the same value", AGAIN)
    images = [read[path] for path in case.images if path in read]
    channels = sum(map(len, images))
    if len(images) == len(case.images) and channels != case.channels:
        message = f"the scan has {channels} channels, but those of this data set have {case.channels}"
        yield Problem(case.images[0], message, AGAIN)
    if (label := read.get(case.label)) is not None:
        if len(label) != 1:
            yield Problem(case.label, f"the labels have {len(label)} channels instead of one", AGAIN)
        if unknown := sorted(set(label.unique().tolist()) - case.labels):
            listed = ", ".join(f"{value:g}" for value in unknown[:5])
            allowed = ", ".join(map(str, sorted(case.labels)))
            yield Problem(case.label, f"it contains labels {listed}, but only {allowed} are allowed", AGAIN)


def _read_volume(path: Path, on_problem: OnProblem) -> Tensor | None:
    """Read one file as `(C, X, Y, Z)`; None if there is a problem."""
    if not file_exists(path, on_problem):
        return None
    data, transforms = optional_import("monai.data", "data"), optional_import("monai.transforms", "data")
    # Not `LoadImage`, which falls back to readers of other formats and reports their errors.
    reader = data.NibabelReader()
    try:
        values, meta = reader.get_data(reader.read(str(path)))
        volume: Tensor = data.MetaTensor.ensure_torch_and_prune_meta(values.astype(np.float32), meta)
        volume = transforms.EnsureChannelFirst()(volume)
    except MemoryError:
        raise
    except Exception as error:  # A damaged file can raise anything.
        on_problem(Problem(path, f"it cannot be read as a NIfTI volume ({first_line(error)})", AGAIN))
        return None
    if volume.ndim != 4:
        on_problem(Problem(path, f"the volume has {volume.ndim - 1} dimensions instead of three", AGAIN))
        return None
    if not bool(torch.isfinite(volume).all()):
        on_problem(Problem(path, "it contains values that are not finite", AGAIN))
        return None
    return volume


class Volumes(Dataset[TensorPair]):
    """Cases as tensors; results of the deterministic transforms are cached, random transforms run at every access.

    Args:
        cases: The cases to read.
        deterministic: Deterministic dictionary transforms of MONAI.
        random: Random ones.
        cache: Fraction of the cases to keep in memory; they are read now.
        progress: Called after each case that was read.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        deterministic: Sequence[Any],
        random: Sequence[Any],
        cache: float,
        progress: Progress,
    ) -> None:
        transforms, data = optional_import("monai.transforms", "data"), optional_import("monai.data", "data")
        plain = transforms.EnsureTyped(keys=("image", "label"), dtype=(torch.float32, torch.uint8), track_meta=False)
        self._random = transforms.Compose([*random, plain]) if random else None
        # The cache ends before the first transform that is not one of MONAI's.
        read = transforms.Lambda(func=read_case, track_meta=False)
        self._cached = data.CacheDataset(
            list(cases),
            transforms.Compose([read, *deterministic, plain]),
            cache_rate=cache,
            copy_cache=False,  # No transform writes into its input.
            runtime_cache=True,
        )
        self._fill(progress)

    def __len__(self) -> int:
        return len(self._cached)

    def __getitem__(self, index: int) -> TensorPair:
        case = self._load(index)
        if self._random is not None:
            # MONAI's own random state would be the same in every worker process; torch's is not.
            self._random.set_random_state(seed=sample_seed())
            with _without_metadata():
                case = self._random(case)
        # A copy, since it may be the cached volume itself.
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
        except RuntimeError as error:  # MONAI wraps what a transform raises.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, DataError):
                cause = cause.__cause__
            raise cause or error from None


def intensity_augmentation() -> list[Any]:
    """Random transforms of MONAI that change contrast and brightness slightly."""
    transforms = optional_import("monai.transforms", "data")
    return [
        transforms.RandScaleIntensityd(keys="image", prob=0.5, factors=0.1),
        transforms.RandShiftIntensityd(keys="image", prob=0.5, offsets=0.1),
    ]


@contextmanager
def _without_metadata() -> Iterator[None]:
    """Keep MONAI from recording the transforms of each tensor, which takes longer than the transforms."""
    data = optional_import("monai.data", "data")
    before = data.get_track_meta()
    data.set_track_meta(False)
    try:
        yield
    finally:
        data.set_track_meta(before)


def write_volume(path: Path, volume: np.ndarray[Any, Any]) -> None:
    """Write a volume `(X, Y, Z)` with voxels of 1 mm."""
    nibabel = optional_import("nibabel", "data")
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(path)


def ball_mask(shape: Sequence[int], center: Sequence[float], radius: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the voxels of a ball or, in a volume with unequal sides, of an ellipsoid of the volume's proportions.

    Args:
        shape: Shape of the volume.
        center: Center as fractions of the volume.
        radius: Radius as a fraction of the volume.

    Example:
        >>> ball_mask((3, 3, 3), (0.5, 0.5, 0.5), 0.34).sum()  # the central voxel and its six neighbors
        np.int64(7)
    """
    grid = np.stack(np.meshgrid(*((np.arange(size) + 0.5) / size for size in shape), indexing="ij"))
    distance = np.linalg.norm(grid.T - np.asarray(center), axis=-1).T
    return np.asarray(distance < radius)
