"""Tumors in four modalities: regions and normalization by hand, crops, windows, and damaged cases."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from ranp.errors import DataError, InputError
from ranp.experiments.data.brats18 import MODALITIES, REGIONS, BraTS18, predict_sliding_window
from ranp.experiments.data.metrics import RegionDice


def write_case(folder: Path, volumes: list[np.ndarray]) -> Path:
    """The four modalities and the labels of one case."""
    folder.mkdir(parents=True)
    for suffix, volume in zip((*MODALITIES, "seg"), volumes, strict=True):
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(folder / f"{folder.name}_{suffix}.nii.gz")
    return folder


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    folder = tmp_path / "generated"
    BraTS18(crop=(8, 8, 8)).generate(folder, count=8, seed=0)
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Two cases of 6 x 6 x 6 voxels with a brain of 2 x 2 x 2: in modality m its halves are m + 1 and m + 3."""
    for number in range(2):
        volumes = []
        for modality in range(4):
            volume = np.zeros((6, 6, 6), np.int16)
            volume[3, 1:3, 1:3], volume[4, 1:3, 1:3] = modality + 1, modality + 3
            volumes.append(volume)
        labels = np.zeros((6, 6, 6), np.uint8)
        labels[4, 1, 1], labels[4, 2, 2] = 4, 2
        write_case(tmp_path / "HGG" / f"Brats18_{number}_1", [*volumes, labels])
    (tmp_path / "LGG").mkdir()
    return tmp_path


def test_regions_are_those_of_the_challenge() -> None:
    # Voxels with labels 0 1 2 4, and a prediction that takes 4 for 1 and 2 for nothing.
    truth = torch.tensor([0, 1, 2, 4]).reshape(1, 1, 1, 4)
    predicted = torch.tensor([0, 1, 0, 1]).reshape(1, 1, 1, 4)
    metric = RegionDice(REGIONS)
    metric.update(torch.nn.functional.one_hot(predicted, 5).movedim(-1, 1).float(), truth)
    values = {name: float(value) for name, value in metric.compute().items()}
    # ET: nothing of one voxel. TC: voxels 1 and 3, both found. WT: two of three found, 2 * 2 / (3 + 2).
    assert values == pytest.approx({"dice": 1.8 / 3, "dice/ET": 0, "dice/TC": 1, "dice/WT": 0.8})


def test_modalities_are_normalized_within_the_brain_and_cropped_to_it(drawn: Path) -> None:
    image, labels = BraTS18(crop=(2, 2, 2), validation=0.5).open(drawn).evaluation[0]
    # Of every modality mean m + 2 and deviation 1, whatever m; the zeros outside do not count.
    assert image.shape == (4, 2, 2, 2)
    assert torch.equal(image[:, 0], torch.full((4, 2, 2), -1.0))
    assert torch.equal(image[:, 1], torch.full((4, 2, 2), 1.0))
    assert labels.tolist() == [[[0, 0], [0, 0]], [[4, 0], [0, 2]]]


def test_background_voxels_within_the_box_are_zero(drawn: Path) -> None:
    for case in (drawn / "HGG").iterdir():
        path = case / f"{case.name}_flair.nii.gz"
        volume = np.asarray(nibabel.load(path).dataobj).copy()
        volume[3, 1, 1] = 0
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(path)
    image, _ = BraTS18(crop=(2, 2, 2), validation=0.5).open(drawn).evaluation[0]
    assert image[0, 0, 0, 0] == 0
    # Three voxels of 1 and four of 3: mean 15/7.
    inside = np.array([1, 1, 1, 3, 3, 3, 3.0])
    assert float(image[0, 1, 0, 0]) == pytest.approx((3 - inside.mean()) / inside.std())


def test_a_brain_smaller_than_the_crop_is_padded(drawn: Path) -> None:
    bundle = BraTS18(crop=(4, 2, 2), validation=0.5, augment=False).open(drawn)
    image, labels = bundle.train[0]
    assert image[0, :, 0, 0].tolist() == [0, -1, 1, 0]
    assert labels[:, 0, 0].tolist() == [0, 0, 4, 0]


def test_crops_are_parts_of_the_volume_with_their_own_labels(generated: Path) -> None:
    bundle = BraTS18(crop=(8, 8, 8), augment=False).open(generated)
    whole = bundle.train._cached[0]  # type: ignore[attr-defined]
    windows = whole["image"].unfold(1, 8, 1).unfold(2, 8, 1).unfold(3, 8, 1)
    seen = set()
    for _ in range(12):
        image, labels = bundle.train[0]
        same = (windows == image[:, None, None, None]).flatten(4).all(-1).all(0).nonzero().tolist()
        (place,) = same
        x, y, z = place
        assert torch.equal(labels, whole["label"][0, x : x + 8, y : y + 8, z : z + 8].long())
        seen.add(tuple(place))
    assert len(seen) > 2


def test_images_and_labels_are_flipped_together_along_every_axis(drawn: Path) -> None:
    bundle = BraTS18(crop=(2, 2, 2), validation=0.5).open(drawn)
    seen = set()
    for _ in range(80):
        image, labels = bundle.train[0]
        assert bool((image[0][labels > 0] > 0).all())
        (place,) = (labels == 4).nonzero().tolist()
        (other,) = (labels == 2).nonzero().tolist()
        assert (place[0], place[1] + other[1], place[2] + other[2]) == (other[0], 1, 1)
        seen.add(tuple(place))
    assert len(seen) == 8


def test_sliding_windows_are_blended_with_total_weight_one() -> None:
    sizes = set()

    def model(inputs: torch.Tensor) -> torch.Tensor:
        sizes.add(tuple(inputs.shape))
        return inputs * 3

    inputs = torch.rand(1, 2, 7, 9, 11)
    outputs = predict_sliding_window((4, 4, 4), 0.5, model, inputs)
    assert torch.allclose(outputs, inputs * 3, atol=1e-5)
    assert sizes == {(1, 2, 4, 4, 4)}


def test_evaluation_goes_through_the_window(generated: Path) -> None:
    bundle = BraTS18(crop=(8, 8, 8)).open(generated)
    assert bundle.evaluation_batch == 1
    inputs, labels = bundle.evaluation[0]
    sizes = set()

    def model(inputs: torch.Tensor) -> torch.Tensor:
        sizes.add(tuple(inputs.shape[1:]))
        return inputs[:, :1].repeat(1, 5, 1, 1, 1)

    outputs = bundle.predict(model, inputs[None])
    assert outputs.shape == (1, 5, *labels.shape)
    assert max(labels.shape) > 8
    assert sizes == {(4, 8, 8, 8)}


def test_the_generated_layout_is_the_challenges(generated: Path) -> None:
    cases = {grade: sorted(path.name for path in (generated / grade).iterdir()) for grade in ("HGG", "LGG")}
    assert (len(cases["HGG"]), len(cases["LGG"])) == (6, 2)
    assert cases["LGG"] == ["Brats18_2013_4_1", "Brats18_2013_8_1"]
    first = generated / "HGG" / "Brats18_2013_1_1"
    assert sorted(path.name for path in first.iterdir()) == sorted(
        f"Brats18_2013_1_1_{suffix}.nii.gz" for suffix in ("flair", "t1", "t1ce", "t2", "seg")
    )
    volumes = {path.name.split("_")[-1]: np.asarray(nibabel.load(path).dataobj) for path in first.iterdir()}
    assert set(np.unique(volumes["seg.nii.gz"])) == {0, 1, 2, 4}
    assert volumes["t1.nii.gz"].dtype == np.int16
    assert (volumes["t1.nii.gz"] == 0).mean() > 0.2
    assert bool((volumes["t1.nii.gz"][volumes["seg.nii.gz"] > 0] > 0).all())
    grade = np.asarray(nibabel.load(generated / "LGG/Brats18_2013_4_1/Brats18_2013_4_1_seg.nii.gz").dataobj)
    assert set(np.unique(grade)) == {0, 1, 2}


def test_both_grades_are_split(generated: Path) -> None:
    train, evaluation = BraTS18(validation=0.5).find(generated, pytest.fail)
    grades = [[case.label.parent.parent.name for case in part] for part in (train, evaluation)]
    assert grades == [["HGG"] * 3 + ["LGG"]] * 2
    assert not {case.label.name for case in train} & {case.label.name for case in evaluation}


def test_every_damaged_file_is_reported_with_its_fault(generated: Path) -> None:
    data = BraTS18(crop=(8, 8, 8))
    hgg = sorted((generated / "HGG").iterdir())
    files = {
        hgg[0] / f"{hgg[0].name}_t1ce.nii.gz": "the file is missing",
        hgg[0] / f"{hgg[0].name}_t2.nii.gz": "cannot be read",
        hgg[1] / f"{hgg[1].name}_seg.nii.gz": "labels 3",
        hgg[2] / f"{hgg[2].name}_flair.nii.gz": "the shape is 5 x 5 x 5",
        hgg[3] / f"{hgg[3].name}_flair.nii.gz": "all voxels have the same value",
    }
    missing, cut, wrong, small, empty = files
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-50])
    labels = np.asarray(nibabel.load(wrong).dataobj).copy()
    labels[0, 0, 0] = 3
    nibabel.Nifti1Image(labels, np.eye(4)).to_filename(wrong)
    nibabel.Nifti1Image(np.arange(125, dtype=np.int16).reshape(5, 5, 5), np.eye(4)).to_filename(small)
    nibabel.Nifti1Image(np.zeros(labels.shape, np.int16), np.eye(4)).to_filename(empty)
    problems = data.check(generated)
    assert {problem.path: files[problem.path] in problem.message for problem in problems} == dict.fromkeys(files, True)
    assert len(problems) == len(files)
    with pytest.raises(DataError, match=r"_t1ce\.nii\.gz: the file is missing"):
        data.open(generated)
    bundle = data.open(generated, skip_damaged=True)
    assert len(bundle.train) + len(bundle.evaluation) == 4  # type: ignore[arg-type]


def test_a_missing_grade_is_reported(drawn: Path) -> None:
    (drawn / "LGG").rmdir()
    (problem,) = BraTS18(crop=(2, 2, 2), validation=0.5).check(drawn)
    assert problem.path == drawn / "LGG"


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_an_invalid_overlap_is_refused_before_training(drawn: Path, overlap: float) -> None:
    with pytest.raises(InputError, match="overlap"):
        BraTS18(crop=(2, 2, 2), overlap=overlap).open(drawn)


def test_generating_one_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2"):
        BraTS18().generate(tmp_path / "new", count=1)
