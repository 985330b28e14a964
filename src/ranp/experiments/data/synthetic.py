"""Synthetic inputs that resemble the source paper's data sets, without any files.

Sparse voxel shapes replace ShapeNet's part segmentation, smooth volumes with nested tumor regions BraTS'18, moving
discs UCF101. All random numbers come from the given generator, none from torch's global one.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ranp.experiments.data._base import TensorPair
from ranp.experiments.data.brats18 import CORE, EDEMA, ENHANCING, MODALITIES
from ranp.experiments.data.shapenet import FIRST_PART, PARTS, into_unit_sphere, voxelize


def draw_batches(draw: Callable[[Generator], TensorPair], count: int, *, seed: int) -> list[TensorPair]:
    """Batches of one sample from a seeded generator; the first batches do not depend on `count`."""
    generator = Generator().manual_seed(seed)
    drawn = (draw(generator) for _ in range(count))
    return [(inputs[None], labels[None]) for inputs, labels in drawn]


def sparse_shape(generator: Generator, size: int = 64, points: int = 2600) -> TensorPair:
    """One voxelized point cloud of an object of a random category: see `voxelize`.

    Every part of the category is the surface of an ellipsoid, a box or a cylinder that touches an earlier part; half of
    the parts are mirrored. The object is scaled into the unit sphere. 2600 is ShapeNet's average number of points.
    """
    category = int(torch.randint(len(PARTS), (), generator=generator))
    clouds: list[Tensor] = []
    for _ in range(PARTS[category]):
        part = _surface(points // PARTS[category], generator)
        if clouds:
            whole = torch.cat(clouds)
            touched = whole[torch.randint(len(whole), (), generator=generator)]
            part = part + touched - part[torch.randint(len(part), (), generator=generator)]
        if torch.rand((), generator=generator) < 0.5:
            part[::2, 0] *= -1
        clouds.append(part)
    ids = torch.cat([torch.full((len(part),), FIRST_PART[category] + i) for i, part in enumerate(clouds)])
    return voxelize(into_unit_sphere(torch.cat(clouds)), ids, size)


def _surface(points: int, generator: Generator) -> Tensor:
    """Points `(points, 3)` on an ellipsoid, a box or a cylinder around the origin."""
    kind = int(torch.randint(3, (), generator=generator))
    unit = torch.randn(points, 3, generator=generator)
    if kind == 0:
        unit = F.normalize(unit, dim=1)
    elif kind == 1:
        unit = unit / unit.abs().amax(1, keepdim=True)
    else:
        unit = torch.cat([F.normalize(unit[:, :2], dim=1), unit[:, 2:].erf()], dim=1)
    return unit * _between(0.05, 0.6, (3,), generator)


def brain_tumor(generator: Generator, size: int = 128, crop: int | None = None) -> TensorPair:
    """One brain in four MRI modalities `(4, D, H, W)`, and the labels `(D, H, W)` of the nested regions of a tumor.

    An ellipsoid of folded tissue (fluid, grey and white matter) contains a tumor with an irregular outline: edema
    around an enhancing rim around a core. Every modality has mean 0 and standard deviation 1 within the brain and is
    constant outside, as is usual for BraTS. With `crop`, a random crop of so many voxels per side.
    """
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    brain = _distance(grid, torch.zeros(3), _between(0.7, 1, (3,), generator)) < 1
    center, radii = _between(-0.3, 0.3, (3,), generator), _between(0.3, 0.5, (3,), generator)
    depth = _distance(grid, center, radii) + 0.1 * _smooth_fields(1, size, 8, generator)[0]
    labels = torch.zeros(size, size, size, dtype=torch.long)
    for label, outline in ((EDEMA, 1.0), (ENHANCING, 0.7), (CORE, 0.45)):
        labels[brain & (depth < outline)] = label
    image = _modalities(brain, labels, generator)
    corner = torch.randint(size - (crop or size) + 1, (3,), generator=generator).tolist()
    z, y, x = (slice(start, start + (crop or size)) for start in corner)
    return image[:, z, y, x].contiguous(), labels[z, y, x].contiguous()


def moving_shapes(generator: Generator, size: int = 112, frames: int = 16, classes: int = 101) -> TensorPair:
    """One clip `(3, frames, size, size)` of discs that move in front of a smooth background, and a random class.

    Every channel has mean 0 and standard deviation 1 over the clip, as is usual for video networks. The class is
    independent of the clip: scores before training do not depend on how inputs and labels are related.
    """
    coarse = torch.randn(1, 3, 6, 6, generator=generator)
    background = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)[0]
    clip = background[:, None].repeat(1, frames, 1, 1)
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    time = torch.linspace(-1, 1, frames).view(-1, 1, 1)
    for _ in range(5):
        (y0, x0), (vy, vx) = _between(-0.8, 0.8, (2, 2), generator)
        radius, color = _between(0.1, 0.4, (), generator), _between(-3, 3, (3,), generator)
        inside = (y - y0 - vy * time) ** 2 + (x - x0 - vx * time) ** 2 < radius**2
        clip = torch.where(inside, color.view(3, 1, 1, 1), clip)
    std, mean = torch.std_mean(clip, dim=(1, 2, 3), keepdim=True)
    return (clip - mean) / std, torch.randint(classes, (), generator=generator)


def _modalities(brain: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Intensities `(4, D, H, W)`: each tissue and label has its own brightness in each modality."""
    size = len(brain)
    folds = _smooth_fields(1, size, 16, generator)[0] + 0.5 * _smooth_fields(1, size, 32, generator)[0]
    tissue = (folds > -0.3).long() + (folds > 0.5).long()  # fluid, grey and white matter
    brightness = _between(-1, 1, (len(MODALITIES), 3 + ENHANCING), generator)
    image = 3 + brightness[:, torch.where(labels > 0, 2 + labels, tissue)]
    # The bias field of the receiver coils.
    image = (image + 0.3 * _smooth_fields(len(MODALITIES), size, 6, generator)) * brain
    std, mean = torch.std_mean(image[:, brain], dim=1)
    return (image - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)


def _distance(grid: Tensor, center: Tensor, radii: Tensor) -> Tensor:
    """Distance of every grid point from a center, in units of an ellipsoid's radii."""
    return ((grid - center.view(3, 1, 1, 1)) / radii.view(3, 1, 1, 1)).square().sum(dim=0).sqrt()


def _smooth_fields(count: int, size: int, knots: int, generator: Generator) -> Tensor:
    """Fields `(count, size, size, size)` that interpolate normally distributed values at `knots` points per side."""
    values = torch.randn(1, count, knots, knots, knots, generator=generator)
    return F.interpolate(values, size=(size, size, size), mode="trilinear", align_corners=True)[0]


def _between(low: float, high: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
