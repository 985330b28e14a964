"""Shapes in generated volumes, counted by hand."""

from ranp.experiments.data._volumes import ball_mask


def test_a_small_ball_is_the_central_voxel_and_its_six_neighbors() -> None:
    mask = ball_mask((3, 3, 3), (0.5, 0.5, 0.5), 0.34)
    assert (mask.sum(), mask[1, 1].sum(), mask[1, :, 1].sum(), mask[:, 1, 1].sum()) == (7, 3, 3, 3)
