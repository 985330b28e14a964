"""Tissue segmentation on the MNI152 template: a real MRI that the package nilearn brings along.

The template (ICBM 2009a, nonlinear, symmetric; Fonov et al., NeuroImage 2011) is the average of 152 adult
brains on a 1 mm grid, and its right half is the exact mirror image of its left half. Keeping the hemispheres
apart therefore keeps voxels apart, but not contents. So the split is made twice: training sees the left
hemisphere behind the plane y = 0 mm, validation the right hemisphere in front of it. No voxel, and no mirrored
voxel, of one is in the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranp.errors import InputError
from ranp.optional import optional_import

TISSUES = ("background", "grey", "white", "other")
"""Class names; a label is an index into them. *Other* is inside the brain but neither grey nor white: fluid."""

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Brain:
    """The whole template on its own grid; axes run left to right, back to front and bottom to top.

    Attributes:
        image: T1 intensity in [0, 1], `(X, Y, Z)`; 0 outside the brain.
        labels: Index into `TISSUES` of every voxel, `(X, Y, Z)`.
        origin: Voxel index of the world's point (0, 0, 0) mm; one voxel is 1 mm wide.
    """

    image: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.uint8]]
    origin: tuple[int, int, int]


@dataclass(frozen=True)
class Region:
    """A box cut out of a brain, with memory of its own.

    Attributes:
        image: Normalised intensity, `(X, Y, Z)`.
        labels: Index into `TISSUES` of every voxel, `(X, Y, Z)`.
        start: Voxel index, in the whole brain, of the box's first voxel.
    """

    image: Tensor
    labels: Tensor
    start: tuple[int, int, int]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where the region lies in the whole brain."""
        x, y, z = (slice(first, first + size) for first, size in zip(self.start, self.image.shape, strict=True))
        return x, y, z


def load_brain() -> Brain:
    """Read the template and its tissue maps from the installed nilearn.

    Returns:
        The brain at the resolution it is stored in, so no resampling mixes neighbouring voxels.

    Raises:
        RanpError: nilearn is not installed.
    """
    nilearn = optional_import("nilearn.datasets", "MNI152 template", extra="demo")
    template = nilearn.load_mni152_template(resolution=1)
    maps = [load(resolution=1) for load in (nilearn.load_mni152_gm_template, nilearn.load_mni152_wm_template)]
    image, grey, white = (np.asarray(each.dataobj, dtype=np.float32) for each in (template, *maps))
    x, y, z = (round(-float(shift)) for shift in template.affine[:3, 3])
    return Brain(image, label_tissues(image, grey, white), (x, y, z))


def label_tissues(
    image: np.ndarray[Any, np.dtype[np.float32]],
    grey: np.ndarray[Any, np.dtype[np.float32]],
    white: np.ndarray[Any, np.dtype[np.float32]],
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Give every voxel its most probable tissue.

    Args:
        image: Intensity, zero outside the brain, any shape.
        grey: Probability of grey matter, same shape.
        white: Probability of white matter, same shape.

    Returns:
        Indices into `TISSUES`, same shape.

    Example:
        >>> maps = np.float32([[0, 1, 1, 1], [0, 0.8, 0.1, 0.2], [0, 0.1, 0.7, 0.1]])
        >>> [TISSUES[label] for label in label_tissues(*maps)]
        ['background', 'grey', 'white', 'other']
    """
    probable = np.argmax(np.stack([grey, white, 1 - grey - white]), axis=0) + 1
    return np.where(image > 0, probable, 0).astype(np.uint8)


def split(brain: Brain) -> tuple[Region, Region]:
    """Cut out the training and the validation region.

    Training lies left of x = 0 mm and behind y = 0 mm, validation right of it and in front; the two planes
    belong to neither. Both boxes are cropped to the brain within them. Intensities of both are shifted and
    scaled by the mean and standard deviation of the training region's brain.

    Args:
        brain: A brain whose voxel `origin` is the world's point zero.

    Returns:
        Training region, validation region.

    Raises:
        InputError: A region holds no brain.
    """
    x, y, _ = brain.origin
    inside = brain.labels > 0
    training = _crop(inside, (slice(0, x), slice(0, y), slice(None)))
    validation = _crop(inside, (slice(x + 1, None), slice(y + 1, None), slice(None)))
    known = brain.image[training][inside[training]]
    mean, deviation = float(known.mean()), float(known.std()) or 1.0
    normalized = (brain.image - mean) / deviation
    first, second = (
        Region(
            torch.from_numpy(normalized[box].copy()),
            torch.from_numpy(brain.labels[box].copy()),
            (box[0].start, box[1].start, box[2].start),
        )
        for box in (training, validation)
    )
    return first, second


def _crop(inside: np.ndarray[Any, np.dtype[np.bool_]], box: tuple[slice, ...]) -> tuple[slice, slice, slice]:
    """Shrink a box to the brain in it, leaving a rim of background where the box has one."""
    rim = 4
    offsets = [part.indices(size)[0] for part, size in zip(box, inside.shape, strict=True)]
    found = np.argwhere(inside[box])
    if not len(found):
        raise InputError("split", got="a region without brain", expected="brain on both sides of both planes")
    low = np.maximum(found.min(axis=0) - rim, 0) + offsets
    high = np.minimum(found.max(axis=0) + rim + 1, inside[box].shape) + offsets
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return x, y, z


def batches(region: Region, *, patch: int, batch: int, seed: int) -> Iterator[Batch]:
    """Draw random patches for ever; the same seed gives the same stream.

    A patch is centred on a random voxel of the brain, and shifted into the region where it would stick out. Patches of
    little but background would make batches unlike each other, which batch normalization bears badly.

    Args:
        region: Where the patches come from; they never leave it.
        patch: Side of a patch in voxels.
        batch: Patches per batch.
        seed: Seed of the positions.

    Yields:
        Intensities `(batch, 1, patch, patch, patch)` and labels of the same shape.

    Raises:
        InputError: The region is smaller than a patch.
    """
    last = np.array(_room(region, patch)) - 1
    centres = np.argwhere(region.labels.numpy() > 0)
    generator = np.random.default_rng(seed)
    while True:
        chosen = centres[generator.integers(len(centres), size=batch)]
        yield _stack(region, np.clip(chosen - patch // 2, 0, last), patch)


def tiles(region: Region, *, patch: int, count: int) -> Batch:
    """Cut fixed patches that do not overlap, spread evenly over the part of the region that holds brain.

    Args:
        region: Where the patches come from.
        patch: Side of a patch in voxels.
        count: How many to cut; fewer if the region has no more.

    Returns:
        Intensities `(count, 1, patch, patch, patch)` and labels of the same shape.

    Raises:
        InputError: The region is smaller than a patch.
    """
    room = _room(region, patch)
    grid = np.stack(np.meshgrid(*(np.arange(0, size, patch) for size in room), indexing="ij"), -1).reshape(-1, 3)
    _, labels = _stack(region, grid, patch)
    brain = (labels > 0).flatten(1).float().mean(1).numpy()
    full = grid[brain >= min(0.25, float(brain.max()))]
    chosen = full[np.linspace(0, len(full) - 1, min(count, len(full))).round().astype(int)]
    return _stack(region, chosen, patch)


def _room(region: Region, patch: int) -> tuple[int, ...]:
    """How many positions a patch has along each axis."""
    shape = tuple(region.image.shape)
    if patch < 1 or min(shape) < patch:
        raise InputError("patches", got=f"a side of {patch}", expected=f"at least 1 and at most {min(shape)}")
    return tuple(size - patch + 1 for size in shape)


def _stack(region: Region, corners: np.ndarray[Any, np.dtype[Any]], patch: int) -> Batch:
    boxes = [tuple(slice(int(c), int(c) + patch) for c in corner) for corner in corners]
    images = torch.stack([region.image[box] for box in boxes])
    labels = torch.stack([region.labels[box] for box in boxes])
    return images[:, None], labels[:, None].long()
