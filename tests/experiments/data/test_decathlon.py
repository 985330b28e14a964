"""Volumes in the Decathlon's layout: written by hand, damaged, and the real hippocampus."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import get_track_meta

from helpers.real_data import real_data
from ranp.errors import DataError, InputError
from ranp.experiments.data.decathlon import Decathlon, predict_slices
from ranp.experiments.data.sampler import sample_seed

PLAIN = Decathlon(size=(4, 2, 2), validation=0.5, augment=False)


def write(folder: Path, part: str, name: str, volume: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path = folder / part / f"{name}.nii.gz"
    path.parent.mkdir(exist_ok=True, parents=True)
    nibabel.Nifti1Image(volume, np.eye(4) if affine is None else affine).to_filename(path)
    return path


def slices(*values: float) -> np.ndarray:
    """A volume of 2 x 2 voxels a slice, each slice of one value."""
    return np.array(values, np.float32 if isinstance(values[0], float) else np.uint8).repeat(4).reshape(-1, 2, 2)


def describe(folder: Path, **changes: object) -> None:
    content = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "2": "b"}} | changes
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two cases of two slices: intensities 1 and 3, labels 0 and 2; the second is stored from right to left."""
    for name, affine in (("a", np.eye(4)), ("b", np.diag([-1.0, 1, 1, 1]))):
        write(tmp_path, "imagesTr", name, slices(1.0, 3.0), affine)
        write(tmp_path, "labelsTr", name, slices(0, 2), affine)
    describe(tmp_path)
    return tmp_path


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    folder = tmp_path / "generated"
    Decathlon(size=(8, 8, 8)).generate(folder, count=5, seed=0)
    return folder


def test_slices_are_those_of_the_volumes(written: Path) -> None:
    volume, truth = PLAIN.open(written).train[0]
    bundle = Decathlon(size=(4, 2, 2), validation=0.5, augment=False, slices=True).open(written)
    assert bundle.input_shape == (1, 4, 2)
    indices = set()
    for _ in range(20):
        image, label = bundle.train[0]
        assert (image.shape, label.shape) == ((1, 4, 2), (4, 2))
        here = [z for z in range(2) if torch.equal(image, volume[..., z]) and torch.equal(label, truth[..., z])]
        assert here
        indices.update(here)
    assert indices == {0, 1}
    assert [part.shape for part in bundle.evaluation[0]] == [(1, 4, 2, 2), (4, 2, 2)]


def test_volumes_are_predicted_slice_by_slice() -> None:
    model = torch.nn.Conv2d(2, 3, 3, padding=1)
    volumes = torch.randn(2, 2, 4, 5, 6)
    outputs = predict_slices(model, volumes)
    assert outputs.shape == (2, 3, 4, 5, 6)
    for z in range(6):
        torch.testing.assert_close(outputs[..., z], model(volumes[..., z]))


def test_augmentation_does_not_depend_on_monais_metadata(generated: Path) -> None:
    train = Decathlon(size=(8, 8, 8)).open(generated).train
    torch.manual_seed(3)
    plain = [train[0] for _ in range(4)]
    assert get_track_meta()
    torch.manual_seed(3)
    for image, label in plain:
        with_metadata = train._random.set_random_state(seed=sample_seed())(train._cached[0])  # type: ignore[attr-defined]
        assert torch.equal(image, with_metadata["image"])
        assert torch.equal(label, with_metadata["label"][0])


def test_volumes_are_normalized_padded_and_reoriented(written: Path) -> None:
    samples = [part[0] for bundle in [PLAIN.open(written)] for part in (bundle.train, bundle.evaluation)]
    rows = sorted(image[0, :, 0, 0].tolist() for image, _ in samples)
    # Mean 2, deviation 1; the padding is the mean. Stored from right to left, the slices change places.
    assert rows == [[0, -1, 1, 0], [0, 1, -1, 0]]
    for image, label in samples:
        assert (image.dtype, label.dtype, type(image)) == (torch.float32, torch.int64, torch.Tensor)
        assert torch.equal(label == 2, image[0] == 1)
        assert (image == image[:, :, :1, :1]).all()


def test_larger_volumes_are_center_cropped(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, "imagesTr", name, np.arange(6, dtype=np.float32)[:, None, None].repeat(2, 1).repeat(2, 2))
        write(
            tmp_path, "labelsTr", name, np.array([0, 0, 1, 2, 0, 0], np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
        )
    describe(tmp_path)
    bundle = Decathlon(size=(2, 2, 2), validation=0.5, augment=False).open(tmp_path)
    image, label = bundle.evaluation[0]
    assert label[:, 0, 0].tolist() == [1, 2]
    assert (image[0, 1] - image[0, 0]).flatten().tolist() == pytest.approx([1 / np.std(np.arange(6))] * 4)


def test_channels_of_a_four_dimensional_image_come_first(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((4, 2, 2, 3)).astype(np.float32)
    for name in "ab":
        write(tmp_path, "imagesTr", name, volume)
        write(tmp_path, "labelsTr", name, np.zeros((4, 2, 2), np.uint8))
    describe(tmp_path, modality={"0": "T1", "1": "T2", "2": "PD"})
    bundle = PLAIN.open(tmp_path)
    expected = (volume - volume.mean((0, 1, 2))) / volume.std((0, 1, 2))
    assert np.allclose(bundle.train[0][0].numpy(), expected.transpose(3, 0, 1, 2), atol=1e-5)
    assert (bundle.in_channels, bundle.input_shape) == (3, (3, 4, 2, 2))


def test_labels_stored_as_float_are_labels(written: Path) -> None:
    for name in "ab":
        write(written, "labelsTr", name, np.full((2, 2, 2), 2.0, np.float64))
    assert PLAIN.check(written) == []
    assert PLAIN.open(written).train[0][1].unique().tolist() == [0, 2]


def test_images_and_labels_are_flipped_together_and_only_left_to_right(written: Path) -> None:
    bundle = Decathlon(size=(4, 2, 2), validation=0.5).open(written)
    seen = set()
    for _ in range(20):
        image, label = bundle.train[0]
        assert torch.equal(label == 2, image[0] == image[0].max())
        seen.add(tuple(label[:, 0, 0].tolist()))
    assert seen == {(0, 0, 2, 0), (0, 2, 0, 0)}
    first, second = (bundle.evaluation[0] for _ in range(2))
    assert torch.equal(first[0], second[0])


def test_augmentation_does_not_change_the_cached_volume(written: Path) -> None:
    bundle = Decathlon(size=(4, 2, 2), validation=0.5).open(written)
    image = bundle.train._cached[0]["image"]  # type: ignore[attr-defined]
    before = image.clone()
    for _ in range(10):
        augmented, _ = bundle.train[0]
        augmented += 1
    assert torch.equal(image, before)


def test_the_split_depends_on_the_seed_alone(generated: Path) -> None:
    def names(seed: int) -> tuple[list[str], list[str]]:
        train, evaluation = Decathlon(validation=0.4, seed=seed).find(generated, lambda problem: None)
        return [case.label.name for case in train], [case.label.name for case in evaluation]

    assert names(0) == names(0)
    assert {tuple(names(seed)[1]) for seed in range(5)} != {tuple(names(0)[1])}
    train, evaluation = names(0)
    assert (len(train), len(evaluation)) == (3, 2)
    assert sorted(train + evaluation) == [f"hippocampus_{number:03d}.nii.gz" for number in range(1, 6)]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0])
def test_a_fraction_that_leaves_a_split_empty_is_refused(generated: Path, fraction: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        Decathlon(validation=fraction).open(generated)


def test_cached_volumes_are_read_once_and_others_each_time(generated: Path) -> None:
    size = (8, 8, 8)
    cached = Decathlon(size=size).open(generated)
    uncached = Decathlon(size=size, cache=0).open(generated)
    for path in generated.glob("imagesTr/*"):
        path.unlink()
    cached.train[0], cached.evaluation[0]
    with pytest.raises(DataError, match=r"imagesTr/hippocampus_\d+\.nii\.gz: the file is missing"):
        uncached.train[0]


def test_without_a_list_cases_are_found_by_their_files(written: Path) -> None:
    (written / "imagesTr" / "._a.nii.gz").write_bytes(b"a hidden file of macOS")
    train, evaluation = PLAIN.find(written, pytest.fail)
    assert sorted(case.label.name for case in train + evaluation) == ["a.nii.gz", "b.nii.gz"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the file is missing"),
        ("{", "Expecting property name"),
        ("[]", "must be integers or slices"),
        ('{"labels": {"0": "x"}}', "no 'modality'"),
        ('{"labels": {"1": "x"}, "modality": {"0": "MRI"}}', "no 0"),
        ('{"labels": {"one": "x"}, "modality": {"0": "MRI"}}', "invalid literal"),
    ],
)
def test_an_invalid_description_is_reported(written: Path, content: str | None, reason: str) -> None:
    path = written / "dataset.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    (problem,) = PLAIN.check(written)
    assert problem.path == path
    assert reason in problem.message
    with pytest.raises(DataError, match=r"dataset\.json"):
        PLAIN.open(written)


def damage(folder: Path) -> dict[Path, str]:
    """Put one fault into each of five cases; returns the expected messages."""
    images, tags = (sorted((folder / part).iterdir()) for part in ("imagesTr", "labelsTr"))
    images[0].write_bytes(images[0].read_bytes()[:-40])
    tags[1].unlink()
    label = np.asarray(nibabel.load(tags[2]).dataobj).copy()
    label[0, 0, 0] = 7
    nibabel.Nifti1Image(label, np.eye(4)).to_filename(tags[2])
    nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)).to_filename(tags[3])
    nibabel.Nifti1Image(np.full((8, 8, 8), np.nan, np.float32), np.eye(4)).to_filename(images[4])
    return {
        images[0]: "cannot be read",
        tags[1]: "the file is missing",
        tags[2]: "labels 7",
        tags[3]: "the shape is 3 x 3 x 3",
        images[4]: "not finite",
    }


def test_every_damaged_file_is_reported_with_its_fault(generated: Path) -> None:
    data = Decathlon(size=(8, 8, 8))
    assert data.check(generated) == []
    faults = damage(generated)
    problems = data.check(generated)
    assert {problem.path for problem in problems} == set(faults)
    assert len(problems) == len(faults)
    for problem in problems:
        assert faults[problem.path] in str(problem)
        assert str(problem).startswith(str(problem.path))


def test_a_fractional_label_is_reported(generated: Path) -> None:
    path = sorted((generated / "labelsTr").iterdir())[0]
    shape = nibabel.load(path).shape
    nibabel.Nifti1Image(np.full(shape, 0.5, np.float32), np.eye(4)).to_filename(path)
    (problem,) = Decathlon().check(generated)
    assert (problem.path, problem.message) == (path, "it contains labels 0.5, but only 0, 1, 2 are allowed")


def test_an_image_with_two_dimensions_is_reported(written: Path) -> None:
    path = write(written, "imagesTr", "a", np.ones((2, 2), np.float32))
    (problem,) = PLAIN.check(written)
    assert (problem.path, problem.message) == (path, "the volume has 2 dimensions instead of three")


def test_a_label_of_several_channels_is_reported(written: Path) -> None:
    path = write(written, "labelsTr", "a", np.zeros((2, 2, 2, 2), np.uint8))
    (problem,) = PLAIN.check(written)
    assert (problem.path, problem.message) == (path, "the labels have 2 channels instead of one")


def test_a_missing_channel_is_reported(generated: Path) -> None:
    describe(generated, modality={"0": "FLAIR", "1": "T1w"})
    assert {problem.message for problem in Decathlon().check(generated)} == {
        "the scan has 1 channels, but those of this data set have 2"
    }


def test_a_damaged_case_is_an_error_unless_skipped(generated: Path) -> None:
    data = Decathlon(size=(8, 8, 8))
    path = sorted((generated / "imagesTr").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-40])
    before = data.find(generated, pytest.fail)
    with pytest.raises(DataError, match=path.name):
        data.open(generated)
    bundle = data.open(generated, skip_damaged=True)
    assert [problem.path for problem in bundle.skipped] == [path]
    assert len(bundle.train) + len(bundle.evaluation) == 4  # type: ignore[arg-type]
    assert data.find(generated, pytest.fail) == before


def test_skipping_every_case_is_an_error(generated: Path) -> None:
    for path in (generated / "imagesTr").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="the file is missing"):
        Decathlon().open(generated, skip_damaged=True)


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    describe(tmp_path)
    (problem,) = Decathlon().check(tmp_path)
    assert problem.path == tmp_path
    with pytest.raises(DataError, match="too few samples"):
        Decathlon().open(tmp_path)


def test_progress_reports_every_case(generated: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    Decathlon().check(generated, lambda *call: calls.append(call))
    assert calls == [("check files", done, 5) for done in range(1, 6)]
    calls.clear()
    Decathlon(size=(8, 8, 8)).open(generated, progress=lambda *call: calls.append(call))
    assert calls == [("read volumes", done, total) for total in (4, 1) for done in range(1, total + 1)]


def test_generating_one_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2"):
        Decathlon().generate(tmp_path / "new", count=1)


@pytest.fixture(scope="module")
def hippocampus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight of the real cases, among them one whose labels are stored as float."""
    source, folder = real_data("hippocampus"), tmp_path_factory.mktemp("data") / "hippocampus"
    names = sorted(path.name for path in (source / "labelsTr").glob("*.nii.gz"))
    floats = [name for name in names if nibabel.load(source / "labelsTr" / name).get_data_dtype().kind == "f"]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for name in {*[name for name in names if name not in floats][:7], floats[0]}:
            (folder / part / name).symlink_to(source / part / name)
    (folder / "dataset.json").symlink_to(source / "dataset.json")
    return folder


def test_real_volumes_are_normalized_and_not_cropped(hippocampus: Path) -> None:
    data = Decathlon(validation=0.25, augment=False)
    assert data.check(hippocampus) == []
    bundle = data.open(hippocampus)
    assert bundle.class_names == ("background", "Anterior", "Posterior")
    assert (len(bundle.train), len(bundle.evaluation)) == (6, 2)  # type: ignore[arg-type]
    for image, label in (bundle.train[index] for index in range(6)):
        assert (image.shape, label.shape) == ((1, 48, 64, 48), (48, 64, 48))
        inside = image[image != 0]
        assert (float(inside.mean()), float(inside.std())) == pytest.approx((0, 1), abs=1e-2)
        # The anterior part lies in front of the posterior one: the last axis but one runs from back to front.
        front, back = ((label == value).nonzero()[:, 1].float().mean() for value in (1, 2))
        assert front > back + 5
        # About 1.5 to 2 cm3 of voxels of 1 mm each part; no label was cropped away.
        assert all(500 < int((label == value).sum()) < 4000 for value in (1, 2))
