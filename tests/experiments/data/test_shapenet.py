"""Points and voxels computed by hand, and damaged files in the challenge's layout."""

from pathlib import Path

import pytest
import torch

from ranp.errors import DataError, InputError
from ranp.experiments.data.shapenet import (
    CATEGORIES,
    EMPTY,
    FIRST_PART,
    Shape,
    ShapeNet,
    into_unit_sphere,
    voxelize,
)

EARPHONE, GUITAR = 5, 6


@pytest.fixture
def shape(tmp_path: Path) -> Shape:
    """Three points of a guitar: two of its parts."""
    points, labels = tmp_path / "1.pts", tmp_path / "1.seg"
    points.write_text("10 10 10\n14 10 10\n12 11 10\n")
    labels.write_text("1\n3\n1\n")
    return Shape(GUITAR, points, labels)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "generated"
    ShapeNet().generate(folder, count=1, seed=0)
    return folder


@pytest.fixture
def faulty(generated: Path, tmp_path: Path) -> Path:
    """A copy whose files a test can damage."""
    folder = tmp_path / "copy"
    ShapeNet().generate(folder, count=1, seed=0)
    return folder


def test_categories_are_those_of_the_challenge() -> None:
    assert len(CATEGORIES) == 16
    assert sum(parts for _, _, parts in CATEGORIES) == 50
    assert [synset for synset, _, _ in CATEGORIES] == sorted(synset for synset, _, _ in CATEGORIES)
    assert (FIRST_PART[0], FIRST_PART[EARPHONE], FIRST_PART[-1]) == (0, 4 + 2 + 2 + 4 + 4, 47)


def test_part_ids_continue_from_one_category_to_the_next(shape: Shape) -> None:
    read = ShapeNet().read(shape)
    assert read is not None
    points, parts = read
    assert points.tolist() == [[10, 10, 10], [14, 10, 10], [12, 11, 10]]
    assert parts.tolist() == [19, 21, 19]


def test_three_points_fall_into_the_voxels_computed_by_hand(shape: Shape) -> None:
    # The box's middle is (12, 10.5, 10); the first two points are the farthest, sqrt(4.25) away. So x is
    # -0.970, 0.970 and 0, y -0.243, -0.243 and 0.243, z 0; voxels of 4 a side are (value + 1) * 2 rounded down.
    occupied, parts = ShapeNet(size=4).load(shape, augment=False)
    expected = torch.full((4, 4, 4), EMPTY)
    expected[0, 1, 2], expected[3, 1, 2], expected[2, 2, 2] = 19, 21, 19
    assert torch.equal(parts, expected)
    assert torch.equal(occupied, (expected != EMPTY).float()[None])


def test_a_voxel_gets_its_largest_part_id_in_any_order() -> None:
    points = torch.zeros(3, 3)
    for parts in ([4, 6, 5], [6, 5, 4], [5, 4, 6]):
        assert voxelize(points, torch.tensor(parts), 2)[1][1, 1, 1] == 6


def test_points_on_the_boundary_are_inside() -> None:
    occupied, parts = voxelize(torch.tensor([[1.0, 1, 1], [-1, -1, -1]]), torch.tensor([1, 2]), 3)
    assert (int(parts[2, 2, 2]), int(parts[0, 0, 0]), int(occupied.sum())) == (1, 2, 2)


def test_a_single_point_is_centered() -> None:
    assert into_unit_sphere(torch.tensor([[5.0, 5.0, 5.0]])).tolist() == [[0, 0, 0]]


def test_augmented_shapes_are_scaled_and_shifted_within_the_cube(shape: Shape) -> None:
    widths, places = set(), set()
    for _ in range(30):
        _, parts = ShapeNet(size=64).load(shape, augment=True)
        (first,), (second,) = ((parts == part).nonzero()[:1, 0].tolist() for part in (19, 21))
        assert int((parts != EMPTY).sum()) == 3
        widths.add(second - first)
        places.add(first)
    # The outer points are 2 * 0.970 * 32 = 62 voxels apart; at most a fifth is lost.
    assert min(widths) >= 49
    assert max(widths) <= 63
    assert len(widths) > 5
    assert min(places) >= 0
    assert max(places) > 4


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("points", "0 0 0\n1 1\n2 2 2\n", "cannot be read"),
        ("points", "0 0 0\n1 1 x\n2 2 2\n", "cannot be read"),
        ("points", "0 0\n1 1\n2 2\n", "2 numbers per line"),
        ("points", "0 0 0\n1 nan 1\n2 2 2\n", "not finite"),
        ("points", "", "the file is empty"),
        ("labels", "1\n2\n", "2 labels"),
        ("labels", "1\n4\n1\n", "parts 4"),
        ("labels", "0\n1\n1\n", "parts 0"),
        ("labels", "1\n1.5\n1\n", "parts 1.5"),
        ("labels", None, "the file is missing"),
        ("points", None, "the file is missing"),
    ],
)
def test_every_fault_is_reported_with_its_file(shape: Shape, file: str, content: str | None, reason: str) -> None:
    path: Path = getattr(shape, file)
    path.unlink() if content is None else path.write_text(content)
    problems: list = []
    assert ShapeNet().read(shape, problems.append) is None
    (problem,) = problems
    assert problem.path == path
    assert reason in problem.message
    with pytest.raises(DataError, match=path.name):
        ShapeNet().read(shape)


def test_faults_in_both_files_are_both_reported(shape: Shape) -> None:
    shape.points.write_text("0 0 0\n1 1\n")
    shape.labels.write_text("9\n")
    problems: list = []
    ShapeNet().read(shape, problems.append)
    assert [problem.path for problem in problems] == [shape.points, shape.labels]


def test_the_generated_layout_is_the_challenges(generated: Path) -> None:
    assert sorted(path.name for path in generated.iterdir()) == sorted(
        f"{part}_{kind}" for part in ("train", "val", "test") for kind in ("data", "label")
    )
    assert (generated / "test_data" / "04379243" / "000001.pts").is_file()
    labels = (generated / "train_label" / "02691156" / "000001.seg").read_text().split()
    assert set(labels) == {"1", "2", "3", "4"}
    points = (generated / "train_data" / "02691156" / "000001.pts").read_text().splitlines()
    assert len(points) == len(labels)
    assert {len(line.split()) for line in points} == {3}


def test_a_missing_file_and_a_missing_category_are_reported(faulty: Path) -> None:
    data = ShapeNet(size=8)
    orphan = faulty / "train_data" / "02773838" / "000001.pts"
    orphan.unlink()
    gone = faulty / "test_label" / "03797390"
    (gone / "000001.seg").unlink()
    gone.rmdir()
    problems = data.check(faulty)
    assert {problem.path for problem in problems} == {orphan, gone, gone / "000001.seg"}
    with pytest.raises(DataError, match="03797390: the folder of this category is missing"):
        data.open(faulty)
    bundle = data.open(faulty, skip_damaged=True)
    assert (len(bundle.train), len(bundle.evaluation)) == (15, 15)  # type: ignore[arg-type]


def test_a_missing_file_is_an_error_when_the_folder_is_opened(faulty: Path) -> None:
    (faulty / "train_label" / "02773838" / "000001.seg").unlink()
    with pytest.raises(DataError, match=r"train_label/02773838/000001\.seg: the file is missing"):
        ShapeNet(size=8).open(faulty)


def test_validation_and_test_shapes_are_different_files(generated: Path) -> None:
    for part in ("val", "test"):
        _, evaluation = ShapeNet(evaluate_on=part).find(generated, pytest.fail)  # type: ignore[arg-type]
        assert len(evaluation) == 16
        assert {shape.points.parent.parent.name for shape in evaluation} == {f"{part}_data"}


def test_classes_have_names(generated: Path) -> None:
    bundle = ShapeNet(size=8).open(generated)
    assert (bundle.classes, bundle.class_names[4], bundle.ignore_index) == (50, "Bag 1", -100)


def test_generating_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="count: must be at least 1, but is 0"):
        ShapeNet().generate(tmp_path / "new", count=0)
