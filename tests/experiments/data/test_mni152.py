"""The split of the real template, and patches of a small synthetic region."""

import numpy as np
import pytest
import torch

from ranp.errors import InputError
from ranp.experiments.data.mni152 import (
    MNI152,
    TISSUES,
    Brain,
    RandomPatches,
    Region,
    label_tissues,
    load_brain,
    split,
    tiles,
)

WHOLE = (slice(None),) * 3


@pytest.fixture(scope="module")
def brain() -> Brain:
    return load_brain()


@pytest.fixture(scope="module")
def regions(brain: Brain) -> tuple[Region, Region]:
    return split(brain)


@pytest.fixture
def numbered() -> Region:
    """A region whose intensities are voxel indices, with brain in all but the outermost layer."""
    labels = torch.zeros(12, 13, 14, dtype=torch.uint8)
    labels[1:-1, 1:-1, 1:-1] = 1
    return Region(torch.arange(12.0 * 13 * 14).reshape(12, 13, 14), labels, WHOLE)


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


def test_tissues_have_the_brightness_order_of_t1(brain: Brain) -> None:
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


def test_regions_contain_the_brain_of_their_quarter_and_share_no_memory(
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


def test_the_validation_region_does_not_affect_the_training_region(
    brain: Brain, regions: tuple[Region, Region]
) -> None:
    x, y, _ = brain.origin
    image = brain.image.copy()
    image[x + 1 :, y + 1 :] *= 0.5
    training, validation = split(Brain(image, brain.labels, brain.origin))
    assert torch.equal(training.image, regions[0].image)
    assert not torch.equal(validation.image, regions[1].image)


def test_split_refuses_a_region_without_brain() -> None:
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
    patches = RandomPatches(numbered, 4, 10)

    def corners(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return [float(image.min()) for image, _ in patches]

    assert corners(1) == corners(1) != corners(2)
    assert len(corners(1)) == 10


def test_patches_are_parts_of_the_region_with_their_labels(numbered: Region) -> None:
    corners = set()
    for image, label in RandomPatches(numbered, 4, 240):
        assert (image.shape, label.shape, label.dtype) == ((1, 4, 4, 4), (4, 4, 4), torch.int64)
        corner = np.unravel_index(int(image[0, 0, 0, 0]), numbered.image.shape)
        box = tuple(slice(c, c + 4) for c in corner)
        assert torch.equal(image[0], numbered.image[box])
        assert torch.equal(label, numbered.labels[box].long())
        corners.add(tuple(int(c) for c in corner))
    # Both ends of every axis are reached.
    for axis, size in enumerate(numbered.image.shape):
        assert {0, size - 4} <= {corner[axis] for corner in corners}


def test_patches_are_centered_on_brain_voxels() -> None:
    labels = torch.zeros(12, 12, 12, dtype=torch.uint8)
    labels[3, 6, 8] = 2
    (image, label) = RandomPatches(Region(torch.arange(12.0**3).reshape(12, 12, 12), labels, WHOLE), 4, 1)[0]
    assert label.nonzero().tolist() == [[2, 2, 2]]
    assert image[0, 0, 0, 0] == (1 * 12 + 4) * 12 + 6


def test_tiles_are_fixed_and_do_not_overlap(numbered: Region) -> None:
    images, labels = tiles(numbered, patch=4, count=10)
    assert (images.shape, labels.shape) == ((10, 1, 4, 4, 4), (10, 4, 4, 4))
    assert images.unique().numel() == images.numel()
    assert torch.equal(images, tiles(numbered, patch=4, count=10)[0])
    assert len(tiles(numbered, patch=4, count=1000)[0]) == 27


def test_validation_tiles_contain_every_tissue(regions: tuple[Region, Region]) -> None:
    _, labels = tiles(regions[1], patch=16, count=48)
    share = torch.bincount(labels.flatten(), minlength=4) / labels.numel()
    assert share.min() > 0.02


@pytest.mark.parametrize("patch", [0, 13])
def test_patches_that_do_not_fit_are_refused(numbered: Region, patch: int) -> None:
    with pytest.raises(InputError, match="at most 12"):
        RandomPatches(numbered, patch, 1)
    with pytest.raises(InputError, match="at most 12"):
        tiles(numbered, patch=patch, count=1)


def test_training_and_evaluation_use_their_own_region(regions: tuple[Region, Region]) -> None:
    bundle = MNI152(patch=16, training_patches=20, validation_patches=48).open("no such folder")
    images, labels = tiles(regions[1], patch=16, count=48)
    assert [len(part) for part in (bundle.train, bundle.evaluation)] == [20, 48]  # type: ignore[arg-type]
    for index in (0, 47):
        assert all(
            torch.equal(*pair) for pair in zip(bundle.evaluation[index], (images[index], labels[index]), strict=True)
        )
    windows = regions[0].image.unfold(0, 16, 1).unfold(1, 16, 1).unfold(2, 16, 1)
    image, _ = bundle.train[0]
    candidates = windows[windows[..., 0, 0, 0] == image[0, 0, 0, 0]]
    assert (candidates == image[0]).flatten(1).all(1).any()


def test_dice_is_pooled_over_the_tiles() -> None:
    bundle = MNI152(patch=8, validation_patches=4).open("")
    truth = torch.stack([labels for _, labels in bundle.evaluation])
    metric = bundle.metric()
    scores = torch.nn.functional.one_hot(truth.where(truth != 3, 0), 4).movedim(-1, 1).float()
    for part, labels in zip(scores.split(1), truth.split(1), strict=True):  # in batches of one
        metric.update(part, labels)
    assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(
        {"dice": 2 / 3, "dice/grey": 1, "dice/white": 1, "dice/other": 0}
    )
