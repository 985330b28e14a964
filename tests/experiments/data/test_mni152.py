"""The real template, cut in two; and patches on a small made-up brain."""

import itertools

import numpy as np
import pytest
import torch

from ranp.errors import InputError
from ranp.experiments.data.mni152 import TISSUES, Brain, Region, batches, label_tissues, load_brain, split, tiles


@pytest.fixture(scope="module")
def brain() -> Brain:
    return load_brain()


@pytest.fixture(scope="module")
def regions(brain: Brain) -> tuple[Region, Region]:
    return split(brain)


@pytest.fixture
def numbered() -> Region:
    """A region whose intensities are the voxels' own numbers, with brain in all but the outermost layer."""
    labels = torch.zeros(12, 13, 14, dtype=torch.uint8)
    labels[1:-1, 1:-1, 1:-1] = 1
    return Region(torch.arange(12.0 * 13 * 14).reshape(12, 13, 14), labels, (0, 0, 0))


def _mark(brain: Brain, region: Region) -> np.ndarray:
    marked = np.zeros(brain.labels.shape, dtype=bool)
    marked[region.box] = True
    return marked


def test_labels_have_the_proportions_of_a_brain(brain: Brain) -> None:
    share = np.bincount(brain.labels.ravel(), minlength=4) / (brain.labels > 0).sum()
    assert dict(zip(TISSUES[1:], share[1:], strict=True)) == pytest.approx(
        {"grey": 0.58, "white": 0.34, "other": 0.08}, abs=0.03
    )
    volume_litres = (brain.labels > 0).sum() / 1e6
    assert 1.5 < volume_litres < 2.2


def test_tissues_are_as_bright_as_t1_makes_them(brain: Brain) -> None:
    background, grey, white, other = (brain.image[brain.labels == label].mean() for label in range(4))
    assert background == 0 < other < grey < white


def test_template_is_its_own_mirror_image(brain: Brain) -> None:
    # The reason for the second cut: if this ever fails, the split can be made by hemisphere alone.
    x = brain.origin[0]
    left, right = brain.image[:x][::-1], brain.image[x + 1 :]
    assert np.array_equal(left, right)


def test_no_voxel_and_no_mirrored_voxel_is_in_both_regions(brain: Brain, regions: tuple[Region, Region]) -> None:
    training, validation = (_mark(brain, region) for region in regions)
    assert not (training & validation).any()
    # The grid is symmetric about x = 0 mm, so the mirror image of the grid is the grid.
    assert brain.labels.shape[0] == 2 * brain.origin[0] + 1
    assert not (training & validation[::-1]).any()


def test_regions_lie_in_opposite_hemispheres_and_apart_from_the_midline(
    brain: Brain, regions: tuple[Region, Region]
) -> None:
    x, y, _ = brain.origin
    training, validation = (region.box for region in regions)
    assert training[0].stop <= x < validation[0].start
    assert training[1].stop <= y < validation[1].start


def test_regions_hold_the_brain_of_their_quarter_and_share_no_memory(
    brain: Brain, regions: tuple[Region, Region]
) -> None:
    x, y, _ = brain.origin
    quarters = brain.labels[:x, :y], brain.labels[x + 1 :, y + 1 :]
    for region, quarter in zip(regions, quarters, strict=True):
        assert (region.labels > 0).sum() == (quarter > 0).sum()
        assert np.array_equal(region.labels.numpy(), brain.labels[region.box])
        assert not np.shares_memory(region.labels.numpy(), brain.labels)
        assert set(region.labels.unique().tolist()) == {0, 1, 2, 3}


def test_intensities_are_normalized_by_the_training_region_alone(regions: tuple[Region, Region]) -> None:
    training, validation = regions
    known = training.image[training.labels > 0]
    assert known.mean().item() == pytest.approx(0, abs=1e-3)
    assert known.std().item() == pytest.approx(1, abs=1e-3)
    unknown = validation.image[validation.labels > 0]
    assert abs(unknown.mean().item()) > 1e-3


def test_validation_does_not_change_what_training_sees(brain: Brain, regions: tuple[Region, Region]) -> None:
    x, y, _ = brain.origin
    image = brain.image.copy()
    image[x + 1 :, y + 1 :] *= 0.5
    training, validation = split(Brain(image, brain.labels, brain.origin))
    assert torch.equal(training.image, regions[0].image)
    assert not torch.equal(validation.image, regions[1].image)


def test_split_refuses_a_half_without_brain() -> None:
    labels = np.ones((9, 9, 9), dtype=np.uint8)
    labels[5:] = 0
    with pytest.raises(InputError, match="region without brain"):
        split(Brain(labels.astype(np.float32), labels, (4, 4, 4)))


def test_most_probable_tissue_wins() -> None:
    image = np.ones((1, 4), dtype=np.float32)
    image[0, 3] = 0
    grey, white = np.float32([[0.5, 0.3, 0.2, 0.9]]), np.float32([[0.4, 0.4, 0.2, 0.1]])
    assert label_tissues(image, grey, white).tolist() == [[1, 2, 3, 0]]


def test_same_seed_same_patches(numbered: Region) -> None:
    first, again, other = (
        list(itertools.islice(batches(numbered, patch=4, batch=3, seed=seed), 5)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_patches_are_whole_pieces_of_the_region_with_their_labels(numbered: Region) -> None:
    corners = set()
    for images, labels in itertools.islice(batches(numbered, patch=4, batch=4, seed=0), 60):
        assert images.shape == labels.shape == (4, 1, 4, 4, 4)
        assert labels.dtype == torch.int64
        for image, label in zip(images[:, 0], labels[:, 0], strict=True):
            corner = np.unravel_index(int(image[0, 0, 0]), numbered.image.shape)
            box = tuple(slice(c, c + 4) for c in corner)
            assert torch.equal(image, numbered.image[box])
            assert torch.equal(label, numbered.labels[box].long())
            corners.add(tuple(int(c) for c in corner))
    # Every extreme position is reached along every axis.
    for axis, size in enumerate(numbered.image.shape):
        assert {0, size - 4} <= {corner[axis] for corner in corners}


def test_tiles_are_fixed_and_do_not_overlap(numbered: Region) -> None:
    images, labels = tiles(numbered, patch=4, count=10)
    assert images.shape == labels.shape == (10, 1, 4, 4, 4)
    assert images.unique().numel() == images.numel()
    assert torch.equal(images, tiles(numbered, patch=4, count=10)[0])
    assert len(tiles(numbered, patch=4, count=1000)[0]) == 27


def test_validation_tiles_hold_every_tissue(regions: tuple[Region, Region]) -> None:
    _, labels = tiles(regions[1], patch=16, count=48)
    share = torch.bincount(labels.flatten(), minlength=4) / labels.numel()
    assert share.min() > 0.02


@pytest.mark.parametrize("patch", [0, 13])
def test_patches_that_do_not_fit_are_refused(numbered: Region, patch: int) -> None:
    with pytest.raises(InputError, match="at most 12"):
        next(batches(numbered, patch=patch, batch=1, seed=0))
    with pytest.raises(InputError, match="at most 12"):
        tiles(numbered, patch=patch, count=1)
