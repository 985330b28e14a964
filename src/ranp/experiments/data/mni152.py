"""Tissue segmentation on the MNI152 template, a real MRI that is included in the package nilearn.

The template (ICBM 2009a, nonlinear, symmetric; Fonov et al., NeuroImage 2011) is the average of 152 adult brains on a
1 mm grid. Its right half is the exact mirror image of its left half, so splitting by hemisphere alone would put the
same content into both splits. Training therefore uses the left hemisphere posterior to the plane y = 0 mm, validation
the right hemisphere anterior to it: no voxel, and no mirrored voxel, of one is in the other.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ranp.errors import InputError
from ranp.experiments.data._base import DataBundle, DataSet, TensorPair, at_least, metrics
from ranp.experiments.data._files import OnProblem
from ranp.experiments.data.sampler import sample_generator
from ranp.optional import optional_import
from ranp.progress import Progress

Floats = np.ndarray[Any, np.dtype[np.float32]]
Labels = np.ndarray[Any, np.dtype[np.uint8]]
TISSUES = ("background", "grey", "white", "other")
"""Class names: a label is an index into them. *Other* is inside the brain but neither grey nor white: fluid."""


@dataclass(frozen=True)
class Brain:
    """The whole template on its own grid: T1 intensity in [0, 1], 0 outside the brain, and indices into `TISSUES`.

    The axes go from left to right, posterior to anterior, inferior to superior. `origin` is the voxel index of the
    point (0, 0, 0) mm; voxels are 1 mm wide.
    """

    image: Floats
    labels: Labels
    origin: tuple[int, int, int]


@dataclass(frozen=True)
class Region:
    """A box of a brain: normalized intensity and labels `(X, Y, Z)`, which share no memory with the brain."""

    image: Tensor
    labels: Tensor
    box: tuple[slice, ...]
    files: ClassVar[tuple[Path, ...]] = ()  # The template is part of nilearn.


def load_brain() -> Brain:
    """Read the template from the installed nilearn, in its original resolution: nothing mixes neighboring voxels."""
    nilearn = optional_import("nilearn.datasets", "MNI152 template", extra="demo")
    template = nilearn.load_mni152_template(resolution=1)
    maps = [load(resolution=1) for load in (nilearn.load_mni152_gm_template, nilearn.load_mni152_wm_template)]
    image, grey, white = (np.asarray(each.dataobj, dtype=np.float32) for each in (template, *maps))
    x, y, z = (round(-float(shift)) for shift in template.affine[:3, 3])
    return Brain(image, label_tissues(image, grey, white), (x, y, z))


def label_tissues(image: Floats, grey: Floats, white: Floats) -> Labels:
    """Label every voxel of an intensity image with its most probable tissue, from two maps of probabilities."""
    probable = np.argmax(np.stack([grey, white, 1 - grey - white]), axis=0) + 1
    return np.where(image > 0, probable, 0).astype(np.uint8)


def split(brain: Brain) -> tuple[Region, Region]:
    """Cut out the training and the validation region; the planes that separate them are in neither.

    Both are cropped to the brain, and normalized by the mean and standard deviation of the training region's brain.
    """
    x, y, _ = brain.origin
    inside = brain.labels > 0
    training = _crop(inside, (slice(0, x), slice(0, y), slice(None)))
    validation = _crop(inside, (slice(x + 1, None), slice(y + 1, None), slice(None)))
    known = brain.image[training][inside[training]]
    mean, deviation = float(known.mean()), float(known.std()) or 1.0
    normalized = (brain.image - mean) / deviation
    first, second = (
        Region(torch.from_numpy(normalized[box].copy()), torch.from_numpy(brain.labels[box].copy()), box)
        for box in (training, validation)
    )
    return first, second


def _crop(inside: np.ndarray[Any, np.dtype[np.bool_]], box: tuple[slice, ...]) -> tuple[slice, ...]:
    """Crop a box to the brain in it, with a margin of background where the box has one."""
    found, margin = np.argwhere(inside[box]), 4
    if not len(found):
        raise InputError("split", "a region without brain: both sides of both planes must contain some")
    offsets = [part.start or 0 for part in box]
    low = np.maximum(found.min(axis=0) - margin, 0) + offsets
    high = np.minimum(found.max(axis=0) + margin + 1, inside[box].shape) + offsets
    return tuple(map(slice, low.tolist(), high.tolist()))


@dataclass(frozen=True)
class MNI152(DataSet[Region]):
    """Tissue segmentation of the MNI152 template, evaluated by the Dice score of every tissue.

    A training sample is a patch centered on a random brain voxel, shifted into the training region where it would
    extend beyond it. The evaluation samples are fixed patches of the validation region that do not overlap; their
    voxels are pooled, since together they are one brain.

    The template is read from the installed nilearn, so no folder is needed: `open` and `check` accept any path,
    existing or not, and ignore it.

    Attributes:
        patch: Side of a patch in voxels (millimeters).
        training_patches: Number of random patches that count as one epoch.
        validation_patches: Number of evaluation patches; fewer if the region is too small.
    """

    patch: int = 16
    training_patches: int = 512
    validation_patches: int = 48

    def find(self, folder: Path, on_problem: OnProblem) -> tuple[list[Region], list[Region]]:
        """The training and the validation region."""
        training, validation = split(load_brain())
        return [training], [validation]

    def read(self, sample: Region, on_problem: OnProblem) -> Region:
        """The region itself: it was read when it was found."""
        return sample

    def prepare(self, folder: Path, train: list[Region], evaluation: list[Region], progress: Progress) -> DataBundle:
        """Cut the evaluation patches."""
        at_least(1, **vars(self))
        images, labels = tiles(evaluation[0], patch=self.patch, count=self.validation_patches)
        regions = {name: (index,) for index, name in enumerate(TISSUES) if index}
        return DataBundle(
            train=RandomPatches(train[0], self.patch, self.training_patches),
            evaluation=TensorDataset(images, labels),  # type: ignore[arg-type]  # Its samples are pairs.
            input_shape=(1, self.patch, self.patch, self.patch),
            class_names=TISSUES,
            metric=partial(metrics().RegionDice, regions, pooled=True),
            primary_metric="dice",
        )

    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Refuse: the data are part of nilearn."""
        raise InputError("mni152", "there is nothing to generate: the data come with nilearn; train on any folder")


class RandomPatches(Dataset[TensorPair]):
    """Patches `(1, patch, patch, patch)` and labels `(patch, patch, patch)`, each centered on a random brain voxel.

    Batches with patches of mostly background would differ too much from each other for batch normalization.
    """

    def __init__(self, region: Region, patch: int, count: int) -> None:
        self.region, self.patch, self.count = region, patch, count
        self._last = torch.tensor(_positions(region, patch)) - 1
        self._centers = (region.labels > 0).nonzero()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> TensorPair:
        if not 0 <= index < self.count:
            raise IndexError(index)
        chosen = torch.randint(len(self._centers), (), generator=sample_generator())
        corner = (self._centers[chosen] - self.patch // 2).clamp(min=0).minimum(self._last)
        images, labels = _cut(self.region, corner[None].numpy(), self.patch)
        return images[0], labels[0]


def tiles(region: Region, *, patch: int, count: int) -> TensorPair:
    """Fixed patches that do not overlap, spread evenly over the brain; fewer than `count` if the region is too small.

    Intensities are `(count, 1, patch, patch, patch)`, labels `(count, patch, patch, patch)`.
    """
    starts = (np.arange(0, size, patch) for size in _positions(region, patch))
    grid = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3)
    _, labels = _cut(region, grid, patch)
    brain = (labels > 0).flatten(1).float().mean(1).numpy()
    full = grid[brain >= min(0.25, float(brain.max()))]
    chosen = full[np.linspace(0, len(full) - 1, min(count, len(full))).round().astype(int)]
    return _cut(region, chosen, patch)


def _positions(region: Region, patch: int) -> tuple[int, ...]:
    """Number of positions of a patch along each axis."""
    largest = min(region.image.shape)
    if not 1 <= patch <= largest:
        raise InputError("patch", f"must be at least 1 and at most {largest}, but is {patch}")
    return tuple(size - patch + 1 for size in region.image.shape)


def _cut(region: Region, corners: np.ndarray[Any, np.dtype[Any]], patch: int) -> TensorPair:
    boxes = [tuple(slice(int(c), int(c) + patch) for c in corner) for corner in corners]
    images, labels = (torch.stack([volume[box] for box in boxes]) for volume in (region.image, region.labels))
    return images[:, None], labels.long()
