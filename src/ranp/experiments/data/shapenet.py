"""ShapeNet part segmentation, in the layout of the ICCV 2017 challenge (Yi et al., arXiv:1710.06104).

`train_data/<category>/<shape>.pts` contains one point `x y z` per line and `train_label/<category>/<shape>.seg` the
part of each point, counted from 1 within its category; `val_...` and `test_...` likewise. Shapes are voxelized.
"""

import io
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ranp.experiments.data._base import IGNORED, DataBundle, DataSet, LoadedSamples, TensorPair, at_least, metrics
from ranp.experiments.data._files import AGAIN, OnProblem, Problem, fail, read_file
from ranp.experiments.data.sampler import sample_generator
from ranp.files import new_folder
from ranp.progress import Progress

EMPTY = IGNORED  # The label of voxels without a point.
CATEGORIES = (
    ("02691156", "Airplane", 4),
    ("02773838", "Bag", 2),
    ("02954340", "Cap", 2),
    ("02958343", "Car", 4),
    ("03001627", "Chair", 4),
    ("03261776", "Earphone", 3),
    ("03467517", "Guitar", 3),
    ("03624134", "Knife", 2),
    ("03636649", "Lamp", 4),
    ("03642806", "Laptop", 2),
    ("03790512", "Motorbike", 6),
    ("03797390", "Mug", 2),
    ("03948459", "Pistol", 3),
    ("04099429", "Rocket", 3),
    ("04225987", "Skateboard", 3),
    ("04379243", "Table", 3),
)
"""Folder, name and number of parts of each category; part ids continue from one category to the next."""

PARTS = tuple(parts for _, _, parts in CATEGORIES)
FIRST_PART = tuple(accumulate(PARTS, initial=0))[:-1]
"""The id of each category's first part, from 0 to 49."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Shape:
    """The index of a shape's category and its two files."""

    category: int
    points: Path
    labels: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Points and labels."""
        return self.points, self.labels


@dataclass(frozen=True)
class ShapeNet(DataSet[Shape]):
    """Part segmentation of 16 categories and 50 parts, evaluated by the mean IoU of the parts.

    A sample is a cube of voxels, 1 where a point lies and 0 elsewhere. Its targets are part ids, and `EMPTY`, which the
    loss ignores, at voxels without a point. Training shapes are randomly scaled down and shifted within the cube. The
    metric is `PartIoU`, in the convention usual for this data set: only the parts of the shape's own category can be
    predicted, and a part that is neither present nor predicted has an IoU of 1.

    Attributes:
        size: Voxels per side.
        evaluate_on: Which shapes to evaluate on: validation or test.
        augment: Whether to augment training shapes.
    """

    size: int = 64
    evaluate_on: Literal["val", "test"] = "test"
    augment: bool = True

    def find(self, folder: Path, on_problem: OnProblem) -> tuple[list[Shape], list[Shape]]:
        """Shapes that have points, labels or both."""
        return _find(folder, "train", on_problem), _find(folder, self.evaluate_on, on_problem)

    def read(self, sample: Shape, on_problem: OnProblem = fail) -> TensorPair | None:
        """Points `(P, 3)` and their part ids `(P,)`."""
        points = _read_numbers(sample.points, 3, on_problem)
        labels = _read_numbers(sample.labels, 1, on_problem)
        parts, faults = PARTS[sample.category], []
        if labels is not None and (unknown := sorted(set(labels.flatten().tolist()) - set(range(1, parts + 1)))):
            listed = ", ".join(f"{value:g}" for value in unknown[:5])
            faults.append(f"it contains parts {listed}, but this category has parts 1 to {parts}")
        if points is not None and labels is not None and len(points) != len(labels):
            faults.append(f"it has {len(labels)} labels, but {sample.points.name} has {len(points)} points")
        for fault in faults:
            on_problem(Problem(sample.labels, fault, AGAIN))
        if faults or points is None or labels is None:
            return None
        ids = torch.from_numpy(labels[:, 0]).long() - 1 + FIRST_PART[sample.category]
        return torch.from_numpy(points).float(), ids

    def load(self, shape: Shape, *, augment: bool) -> TensorPair:
        """Read and voxelize a shape."""
        read = self.read(shape)
        assert read is not None
        points, parts = read
        points = into_unit_sphere(points)
        if augment:
            generator = sample_generator()
            scale = 0.8 + 0.2 * torch.rand((), generator=generator)
            # As far as the scaled sphere can move within the cube.
            points = points * scale + (1 - scale) * (2 * torch.rand(3, generator=generator) - 1)
        return voxelize(points, parts, self.size)

    def prepare(self, folder: Path, train: list[Shape], evaluation: list[Shape], progress: Progress) -> DataBundle:
        """Shapes are read when they are accessed: each takes a few milliseconds."""
        at_least(1, size=self.size)
        return DataBundle(
            train=LoadedSamples(train, partial(self.load, augment=self.augment)),
            evaluation=LoadedSamples(evaluation, partial(self.load, augment=False)),
            input_shape=(1, self.size, self.size, self.size),
            class_names=tuple(f"{name} {part}" for _, name, parts in CATEGORIES for part in range(1, parts + 1)),
            metric=partial(metrics().PartIoU, PARTS, [name for _, name, _ in CATEGORIES]),
            primary_metric="iou",
            ignore_index=EMPTY,
        )

    def generate(self, folder: Path | str, *, count: int = 4, seed: int = 0) -> None:
        """Write `count` training shapes of every category, and a quarter of that for validation and for test.

        The parts of a shape are ellipsoids whose positions and proportions vary little within a category.
        """
        at_least(1, count=count)
        generator = Generator().manual_seed(seed)
        with new_folder(folder) as partial_folder:
            for part, category in product(("train", "val", "test"), range(len(CATEGORIES))):
                data, label = _folders(partial_folder, part, category)
                data.mkdir(parents=True)
                label.mkdir(parents=True)
                for number in range(1, 1 + (count if part == "train" else max(1, count // 4))):
                    points, parts = _generate_shape(category, generator)
                    np.savetxt(data / f"{number:06d}.pts", points.numpy(), fmt="%.5f")
                    np.savetxt(label / f"{number:06d}.seg", parts.numpy() + 1, fmt="%d")


def into_unit_sphere(points: Tensor) -> Tensor:
    """Center the points' bounding box at the origin and scale the farthest point to a distance of 1."""
    points = points - (points.amax(0) + points.amin(0)) / 2
    radius: Tensor = points.norm(dim=1).max()
    return points / radius.clamp(min=torch.finfo(points.dtype).tiny)


def voxelize(points: Tensor, parts: Tensor, size: int) -> TensorPair:
    """Occupancy `(1, size, size, size)`, 0 or 1, and part ids `(size, size, size)` of points `(P, 3)` within [-1, 1].

    A voxel without a point gets `EMPTY`; one with points of several parts the largest id, whatever their order.
    """
    voxels = ((points + 1) * (size / 2)).long().clamp(0, size - 1)
    ids = torch.full((size**3,), EMPTY)
    ids.scatter_reduce_(0, voxels @ torch.tensor([size * size, size, 1]), parts, "amax")
    ids = ids.view(size, size, size)
    return (ids != EMPTY).float()[None], ids


def _read_numbers(path: Path, columns: int, on_problem: OnProblem) -> Array | None:
    def read(path: Path) -> Array:
        text = path.read_text(encoding="ascii")
        return np.loadtxt(io.StringIO(text), ndmin=2) if text.strip() else np.empty((0, columns))

    if (rows := read_file(path, read, f"{columns} numbers per line", on_problem)) is None:
        return None
    if not len(rows):
        on_problem(Problem(path, "the file is empty", AGAIN))
    elif rows.shape[1] != columns:
        on_problem(Problem(path, f"it has {rows.shape[1]} numbers per line instead of {columns}", AGAIN))
    elif not np.isfinite(rows).all():
        on_problem(Problem(path, "it contains values that are not finite", AGAIN))
    else:
        return rows
    return None


def _folders(folder: Path, part: str, category: int) -> list[Path]:
    """Folders of the points and of the labels."""
    return [folder / f"{part}_{kind}" / CATEGORIES[category][0] for kind in ("data", "label")]


def _find(folder: Path, part: str, on_problem: OnProblem) -> list[Shape]:
    found = []
    for category in range(len(CATEGORIES)):
        data, label = _folders(folder, part, category)
        for missing in (place for place in (data, label) if not place.is_dir()):
            on_problem(Problem(missing, "the folder of this category is missing", "unpack all archives"))
        names = {path.stem for path in (*data.glob("*.pts"), *label.glob("*.seg")) if not path.name.startswith(".")}
        found += [Shape(category, data / f"{name}.pts", label / f"{name}.seg") for name in sorted(names)]
    return found


def _generate_shape(category: int, generator: Generator, points: int = 600) -> TensorPair:
    """Points on one ellipsoid per part, stacked along y, and their parts counted from 0."""
    typical = Generator().manual_seed(category)
    parts = PARTS[category]
    clouds = []
    for part in range(parts):
        radii = 0.1 + 0.3 * torch.rand(3, generator=typical)
        center = 0.4 * torch.rand(3, generator=typical) - 0.2
        center[1] = 0.6 * part
        radii = radii * (0.9 + 0.2 * torch.rand(3, generator=generator))
        clouds.append(center + radii * F.normalize(torch.randn(points // parts, 3, generator=generator), dim=1))
    return torch.cat(clouds), torch.arange(parts).repeat_interleave(points // parts)
