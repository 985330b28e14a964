"""Labeled volumes in NIfTI files: read, check, cache and augment with MONAI, write."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ranp.experiments.data._base import TensorPair
from ranp.experiments.data._files import AGAIN, OnProblem, Problem, fail, read_file
from ranp.experiments.data.sampler import sample_seed
from ranp.optional import optional_import
from ranp.progress import Progress

BOTH = ("image", "label")


@dataclass(frozen=True)
class Case:
    """One patient's scan and labels: files, channels of all images together, and the allowed labels."""

    images: tuple[Path, ...]
    label: Path
    channels: int
    labels: frozenset[int]

    @property
    def files(self) -> tuple[Path, ...]:
        """Images and label."""
        return (*self.images, self.label)


def read_case(case: Case, on_problem: OnProblem = fail) -> dict[str, Any] | None:
    """Read and check files with MONAI: `image` `(C, X, Y, Z)` and `label` `(1, X, Y, Z)`, with orientation metadata."""
    volumes = {path: volume for path in case.files if (volume := _read_volume(path, on_problem)) is not None}
    problems = list(_problems(case, volumes))
    for problem in problems:
        on_problem(problem)
    if problems or len(volumes) < len(case.files):
        return None
    return {"image": torch.cat([volumes[path] for path in case.images]), "label": volumes[case.label]}


def _problems(case: Case, volumes: dict[Path, Tensor]) -> Iterator[Problem]:
    """What is wrong with the volumes that could be read, alone and compared with each other."""
    shapes = Counter(volume.shape[1:] for volume in volumes.values()).most_common(1)
    for path, volume in volumes.items():
        if volume.shape[1:] != shapes[0][0]:
            shape, usual = (" x ".join(map(str, sizes)) for sizes in (volume.shape[1:], shapes[0][0]))
            yield Problem(path, f"the shape is {shape}, but that of the case's other files is {usual}", AGAIN)
        if path != case.label and volume.min() == volume.max():
            yield Problem(path, "all voxels have the same value", AGAIN)
    images = [volumes[path] for path in case.images if path in volumes]
    channels = sum(map(len, images))
    if len(images) == len(case.images) and channels != case.channels:
        message = f"the scan has {channels} channels, but those of this data set have {case.channels}"
        yield Problem(case.images[0], message, AGAIN)
    if (label := volumes.get(case.label)) is not None:
        if len(label) != 1:
            yield Problem(case.label, f"the labels have {len(label)} channels instead of one", AGAIN)
        if unknown := sorted(set(label.unique().tolist()) - case.labels):
            listed = ", ".join(f"{value:g}" for value in unknown[:5])
            allowed = ", ".join(map(str, sorted(case.labels)))
            yield Problem(case.label, f"it contains labels {listed}, but only {allowed} are allowed", AGAIN)


def _read_volume(path: Path, on_problem: OnProblem) -> Tensor | None:
    """Read and check one file as `(C, X, Y, Z)`."""

    def read(path: Path) -> Tensor | None:
        data, transforms = optional_import("monai.data", "data"), optional_import("monai.transforms", "data")
        # Not `LoadImage`, which falls back to readers of other formats and reports their errors.
        reader = data.NibabelReader()
        values, meta = reader.get_data(reader.read(str(path)))
        volume: Tensor = data.MetaTensor.ensure_torch_and_prune_meta(values.astype(np.float32), meta)
        volume = transforms.EnsureChannelFirst()(volume)
        if volume.ndim != 4:
            on_problem(Problem(path, f"the volume has {volume.ndim - 1} dimensions instead of three", AGAIN))
        elif not bool(torch.isfinite(volume).all()):
            on_problem(Problem(path, "it contains values that are not finite", AGAIN))
        else:
            return volume
        return None

    return read_file(path, read, "a NIfTI volume", on_problem)


class Volumes(Dataset[TensorPair]):
    """Cases as tensors, after deterministic and random dictionary transforms of MONAI.

    A fraction of the cases is read and transformed now and kept in memory; random transforms run at every access.
    """

    def __init__(
        self, cases: list[Case], deterministic: list[Any], random: list[Any], cache: float, progress: Progress
    ) -> None:
        transforms = optional_import("monai.transforms", "data")
        plain = transforms.EnsureTyped(keys=BOTH, dtype=(torch.float32, torch.uint8), track_meta=False)
        self._deterministic = transforms.Compose([*deterministic, plain])
        self._random = transforms.Compose([*random, plain]) if random else None
        self._cases, self._cached = cases, list[Any]()
        total = min(int(len(cases) * cache), len(cases))
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            for done, case in enumerate(pool.map(self._read, cases[:total]), start=1):
                self._cached.append(case)
                progress("read volumes", done, total)
        finally:
            pool.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> TensorPair:
        case = self._cached[index] if index < len(self._cached) else self._read(self._cases[index])
        if self._random is not None:
            # MONAI's own random state would be the same in every worker process; torch's is not.
            self._random.set_random_state(seed=sample_seed())
            # Recording the transforms of each tensor would take longer than the transforms.
            data = optional_import("monai.data", "data")
            before = data.get_track_meta()
            data.set_track_meta(False)
            try:
                case = self._random(case)
            finally:
                data.set_track_meta(before)
        # A copy, since it may be the cached volume itself.
        return case["image"].clone(memory_format=torch.contiguous_format), case["label"][0].long()

    def _read(self, case: Case) -> Any:
        return self._deterministic(read_case(case))


def augmentation(axes: Iterable[int]) -> list[Any]:
    """Random transforms of MONAI that flip along axes and change contrast and brightness slightly."""
    transforms = optional_import("monai.transforms", "data")
    return [
        *(transforms.RandFlipd(keys=BOTH, prob=0.5, spatial_axis=axis) for axis in axes),
        transforms.RandScaleIntensityd(keys="image", prob=0.5, factors=0.1),
        transforms.RandShiftIntensityd(keys="image", prob=0.5, offsets=0.1),
    ]


def write_volume(path: Path, volume: np.ndarray[Any, Any]) -> None:
    """Write a volume `(X, Y, Z)` with voxels of 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    optional_import("nibabel", "data").Nifti1Image(volume, np.eye(4)).to_filename(path)


def ball_mask(shape: Sequence[int], center: Sequence[float], radius: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the voxels of a ball; center and radius are fractions of the volume, whose proportions the ball has."""
    grid = np.stack(np.meshgrid(*((np.arange(size) + 0.5) / size for size in shape), indexing="ij"))
    distance = np.linalg.norm(grid.T - np.asarray(center), axis=-1).T
    return np.asarray(distance < radius)
