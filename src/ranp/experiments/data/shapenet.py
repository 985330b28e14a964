"""ShapeNet part segmentation, in the layout of the ICCV 2017 challenge (Yi et al., arXiv:1710.06104).

`train_data/<category>/<shape>.pts` holds one point `x y z` a line and `train_label/<category>/<shape>.seg` the part
of each point, counted from 1 within its category; `val_...` and `test_...` likewise. Shapes become voxels.
"""

import io
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ranp.errors import InputError
from ranp.experiments.data._base import IGNORED, DataBundle, DataSet, Progress, Sample
from ranp.experiments.data._draws import drawn_generator
from ranp.experiments.data._problems import Problem, Report, at_least_one, fail, is_there
from ranp.files import new_folder
from ranp.optional import optional_import

EMPTY = IGNORED
"""Label of voxels without a point."""

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
"""Folder, name and number of parts of each category, in the order in which part ids are numbered through."""

PARTS = tuple(parts for _, _, parts in CATEGORIES)
FIRST_PART = tuple(accumulate(PARTS, initial=0))[:-1]
"""The id of each category's first part, 0 to 49."""

AGAIN = "unpack the archive again"
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Shape:
    """A shape that has not been read: the index of its category and its two files."""

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

    A sample is a cube of voxels, 1 where a point lies and 0 elsewhere. Its targets are part ids numbered through all
    categories, and `EMPTY`, which the loss ignores, where no point lies. Training shapes are made smaller and shifted
    at random, within the cube. The metric is `PartIoU`, in the convention usual for this data set: only the parts of
    the shape's own category compete, and a part that is neither there nor predicted has an IoU of 1.

    Attributes:
        size: Voxels a side.
        evaluate_on: The validation or the test shapes.
        augment: Whether to vary training shapes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     data = ShapeNet(size=16)
        ...     data.generate(Path(place, "new"), count=1, seed=0)
        ...     occupied, parts = data.open(Path(place, "new")).train[0]
        >>> occupied.shape, parts.unique().tolist()
        (torch.Size([1, 16, 16, 16]), [-100, 0, 1, 2, 3])
    """

    size: int = 64
    evaluate_on: Literal["val", "test"] = "test"
    augment: bool = True

    def find(self, folder: Path, report: Report) -> tuple[list[Shape], list[Shape]]:
        """Shapes that have points, labels or both."""
        return _find(folder, "train", report), _find(folder, self.evaluate_on, report)

    def read(self, sample: Shape, report: Report) -> Sample | None:
        """Points `(P, 3)` and their parts `(P,)`, numbered through all categories."""
        return read_shape(sample, report)

    def prepare(self, folder: Path, train: list[Shape], evaluation: list[Shape], progress: Progress) -> DataBundle:
        """Shapes are read when they are asked for: each takes a few milliseconds."""
        at_least_one(size=self.size)
        optional_import("torchmetrics", "data")
        from ranp.experiments.data._metrics import PartIoU

        return DataBundle(
            train=Shapes(train, self.size, augment=self.augment),
            evaluation=Shapes(evaluation, self.size, augment=False),
            input_shape=(1, self.size, self.size, self.size),
            class_names=tuple(f"{name} {part}" for _, name, parts in CATEGORIES for part in range(1, parts + 1)),
            metric=partial(PartIoU, PARTS, [name for _, name, _ in CATEGORIES]),
            primary_metric="iou",
            ignore_index=EMPTY,
        )

    def generate(self, folder: Path | str, *, count: int = 4, seed: int = 0) -> None:
        """Write `count` training shapes of every category, and a quarter of that for validation and for test.

        The parts of a shape are ellipsoids whose places and proportions hardly vary within a category.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
            InputError: Less than one shape.
        """
        if count < 1:
            raise InputError("count", got=str(count), expected="at least 1 shape of each category")
        generator = Generator().manual_seed(seed)
        with new_folder(folder) as partial_folder:
            for part, shapes in (("train", count), ("val", max(1, count // 4)), ("test", max(1, count // 4))):
                for category, (synset, _, _) in enumerate(CATEGORIES):
                    data, label = (partial_folder / f"{part}_{kind}" / synset for kind in ("data", "label"))
                    data.mkdir(parents=True)
                    label.mkdir(parents=True)
                    for number in range(1, shapes + 1):
                        points, parts = _draw(category, generator)
                        np.savetxt(data / f"{number:06d}.pts", points.numpy(), fmt="%.5f")
                        np.savetxt(label / f"{number:06d}.seg", parts.numpy() + 1, fmt="%d")


class Shapes(Dataset[Sample]):
    """Shapes as voxels, read from their files each time."""

    def __init__(self, shapes: list[Shape], size: int, *, augment: bool) -> None:
        self.shapes, self.size, self.augment = shapes, size, augment

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Sample:
        read = read_shape(self.shapes[index])
        assert read is not None
        points, parts = read
        points = into_unit_sphere(points)
        if self.augment:
            generator = drawn_generator()
            scale = 0.8 + 0.2 * torch.rand((), generator=generator)
            # As far as the smaller sphere can go within the cube.
            points = points * scale + (1 - scale) * (2 * torch.rand(3, generator=generator) - 1)
        return voxelise(points, parts, self.size)


def into_unit_sphere(points: Tensor) -> Tensor:
    """Move the middle of the points' box into the origin, and the farthest point to a distance of 1.

    Example:
        >>> into_unit_sphere(torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 5.0]]))
        tensor([[ 0.,  0., -1.],
                [ 0.,  0.,  1.]])
    """
    points = points - (points.amax(0) + points.amin(0)) / 2
    radius: Tensor = points.norm(dim=1).max()
    return points / radius.clamp(min=torch.finfo(points.dtype).tiny)


def voxelise(points: Tensor, parts: Tensor, size: int) -> Sample:
    """Sort points within [-1, 1] into a cube of voxels.

    Args:
        points: `(P, 3)`; what lies outside goes to the outermost voxels.
        parts: A part's id of every point, `(P,)`, at least 0.
        size: Voxels a side.

    Returns:
        Occupancy `(1, size, size, size)` of zeros and ones, and part ids `(size, size, size)` with `EMPTY` at voxels
        without a point. Where parts meet in a voxel the largest id wins: unlike the last, it depends on no order.

    Example:
        >>> points = torch.tensor([[-1.0, -1.0, -1.0], [0.5, 0.0, -0.5], [0.6, 0.1, -0.7]])
        >>> occupied, parts = voxelise(points, torch.tensor([0, 7, 3]), size=2)
        >>> parts.tolist()
        [[[0, -100], [-100, -100]], [[-100, -100], [7, -100]]]
    """
    voxels = ((points + 1) * (size / 2)).long().clamp(0, size - 1)
    ids = torch.full((size**3,), EMPTY)
    ids.scatter_reduce_(0, voxels @ torch.tensor([size * size, size, 1]), parts, "amax")
    ids = ids.view(size, size, size)
    return (ids != EMPTY).float()[None], ids


def read_shape(shape: Shape, report: Report = fail) -> Sample | None:
    """Read a shape's two files and report all that is wrong with them.

    Args:
        shape: What to read.
        report: Takes the problems.

    Returns:
        Points `(P, 3)`, and their parts `(P,)` numbered through all categories; None if there was a problem.
    """
    problems: list[Problem] = []
    points = _read_numbers(shape.points, 3, "points x y z", problems.append)
    labels = _read_numbers(shape.labels, 1, "one part a line", problems.append)
    parts = PARTS[shape.category]
    if labels is not None and (wrong := sorted(set(labels.flatten().tolist()) - set(range(1, parts + 1)))):
        listed = ", ".join(f"{value:g}" for value in wrong[:5])
        problems.append(Problem(shape.labels, f"parts {listed}", f"parts 1 to {parts} in this category", AGAIN))
    if points is not None and labels is not None and len(points) != len(labels):
        expected = f"as many as the {len(points)} points in {shape.points.name}"
        problems.append(Problem(shape.labels, f"{len(labels)} labels", expected, AGAIN))
    for problem in problems:
        report(problem)
    if problems or points is None or labels is None:
        return None
    ids = torch.from_numpy(labels[:, 0]).long() - 1 + FIRST_PART[shape.category]
    return torch.from_numpy(points).float(), ids


def _read_numbers(path: Path, columns: int, expected: str, report: Report) -> Array | None:
    if not is_there(path, report):
        return None
    try:
        text = path.read_text(encoding="ascii")
        rows: Array = np.loadtxt(io.StringIO(text), ndmin=2) if text.strip() else np.empty((0, columns))
    except (OSError, ValueError) as error:
        report(Problem(path, f"a file that cannot be read ({error})", expected, AGAIN))
        return None
    if not len(rows):
        report(Problem(path, "an empty file", expected, AGAIN))
    elif rows.shape[1] != columns:
        report(Problem(path, f"{rows.shape[1]} numbers a line", expected, AGAIN))
    elif not np.isfinite(rows).all():
        report(Problem(path, "values that are not finite", expected, AGAIN))
    else:
        return rows
    return None


def _find(folder: Path, part: str, report: Report) -> list[Shape]:
    found = []
    for category, (synset, _, _) in enumerate(CATEGORIES):
        data, label = (folder / f"{part}_{kind}" / synset for kind in ("data", "label"))
        for place in (data, label):
            if not place.is_dir():
                report(Problem(place, "no folder", "a folder for each of the 16 categories", "unpack all archives"))
        names = {path.stem for path in (*data.glob("*.pts"), *label.glob("*.seg")) if not path.name.startswith(".")}
        found += [Shape(category, data / f"{name}.pts", label / f"{name}.seg") for name in sorted(names)]
    return found


def _draw(category: int, generator: Generator, points: int = 600) -> Sample:
    """Points on one ellipsoid for each part, stacked along y, and their parts counted from 0."""
    typical = Generator().manual_seed(category)
    parts = PARTS[category]
    clouds = []
    for part in range(parts):
        radii = 0.1 + 0.3 * torch.rand(3, generator=typical)
        centre = 0.4 * torch.rand(3, generator=typical) - 0.2
        centre[1] = 0.6 * part
        radii = radii * (0.9 + 0.2 * torch.rand(3, generator=generator))
        clouds.append(centre + radii * F.normalize(torch.randn(points // parts, 3, generator=generator), dim=1))
    return torch.cat(clouds), torch.arange(parts).repeat_interleave(points // parts)
