from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from ranp.experiments.data.brats18 import CORE, EDEMA, ENHANCING
from ranp.experiments.data.shapenet import EMPTY, PARTS
from ranp.experiments.data.synthetic import brain_tumor, draw_batches, sparse_shape


@pytest.mark.parametrize("draw", [sparse_shape, lambda g: brain_tumor(g, size=32, crop=20)])
def test_the_seed_decides_and_the_global_random_state_stays(
    draw: Callable[[Generator], tuple[Tensor, Tensor]],
) -> None:
    state = torch.get_rng_state()
    first = draw_batches(draw, 2, seed=3)
    torch.rand(5)
    again = draw_batches(draw, 3, seed=3)
    other = draw_batches(draw, 1, seed=4)
    for (inputs, labels), (inputs_again, labels_again) in zip(first, again, strict=False):
        assert torch.equal(inputs, inputs_again)
        assert torch.equal(labels, labels_again)
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(first[0][0], other[0][0])
    torch.set_rng_state(state)
    draw_batches(draw, 1, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_sparse_shapes_are_sparse_and_labelled_where_occupied() -> None:
    assert sum(PARTS) == 50
    bounds = torch.tensor([0, *PARTS]).cumsum(0)
    for occupancy, parts in draw_batches(sparse_shape, 20, seed=0):
        assert set(occupancy.unique().tolist()) == {0, 1}
        assert torch.equal(occupancy[0] == 1, parts != EMPTY)
        assert 0.001 < occupancy.mean() < 0.02
        ids = parts[parts != EMPTY].unique()
        category = torch.searchsorted(bounds, ids, right=True)
        assert 0 <= ids.min() <= ids.max() < 50
        assert len(category.unique()) == 1


def test_cross_entropy_ignores_empty_voxels() -> None:
    occupancy, parts = draw_batches(sparse_shape, 1, seed=0)[0]
    logits = torch.randn(1, 50, 64, 64, 64)
    noisy = logits + 10 * torch.randn_like(logits) * (1 - occupancy)
    loss = torch.nn.functional.cross_entropy
    torch.testing.assert_close(loss(logits, parts), loss(noisy, parts))


def test_tumours_are_nested_in_a_brain_of_standard_intensities() -> None:
    for image, labels in draw_batches(lambda g: brain_tumor(g, size=48), 3, seed=1):
        outside = image[0, 0] == image[0, 0, 0, 0, 0]
        assert 0.4 < outside.float().mean() < 0.9
        assert not (outside & (labels[0] > 0)).any()
        inside = image[0][:, ~outside]
        torch.testing.assert_close(inside.mean(1), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(inside.std(1), torch.ones(4), atol=1e-4, rtol=0)
        assert set(labels.unique().tolist()) == {0, CORE, EDEMA, ENHANCING}
        # Nested: no voxel of the core touches oedema or healthy tissue, no enhancing one healthy tissue.
        assert not touching(labels[0] == CORE, labels[0] == 0).any()
        assert touching(labels[0] == ENHANCING, labels[0] == CORE).any()
        assert touching(labels[0] == ENHANCING, labels[0] == EDEMA).any()


def touching(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    grown = torch.nn.functional.max_pool3d(b[None].float(), 3, stride=1, padding=1)[0] > 0
    return a & grown


def test_dense_volumes_are_smooth() -> None:
    image, labels = draw_batches(lambda g: brain_tumor(g, size=64), 1, seed=0)[0]
    inside = (labels[0] == EDEMA)[1:] & (labels[0] == EDEMA)[:-1]
    steps = (image[0, :, 1:] - image[0, :, :-1])[:, inside]
    assert steps.abs().mean() < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_crops_are_windows_of_the_volume(seed: int) -> None:
    image, labels = brain_tumor(torch.Generator().manual_seed(seed), size=40, crop=24)
    whole, whole_labels = brain_tumor(torch.Generator().manual_seed(seed), size=40)
    windows = whole.unfold(1, 24, 1).unfold(2, 24, 1).unfold(3, 24, 1)
    middle = (..., 12, 12, 12)  # a voxel of the brain, whose value tells the place
    (place,) = (windows[middle] == image[middle].view(4, 1, 1, 1)).all(0).nonzero().tolist()
    z, y, x = (slice(start, start + 24) for start in place)
    assert torch.equal(image, whole[:, z, y, x])
    assert torch.equal(labels, whole_labels[z, y, x])
