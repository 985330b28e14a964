"""Volumes in the layout of the Medical Segmentation Decathlon (Antonelli et al., Nature Communications 2022).

`imagesTr/<case>.nii.gz` and `labelsTr/<case>.nii.gz`, described by `dataset.json`, which names modalities and labels
and may list the cases under `training`. Task04, the hippocampus, is the smallest of the ten.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranp.errors import InputError
from ranp.experiments.data._base import DataBundle, DataSet, Model, Progress, forward
from ranp.experiments.data._draws import split_names
from ranp.experiments.data._problems import Problem, Report, at_least_one, fail
from ranp.experiments.data._volumes import Case, Volumes, balls, read_case, write_volume
from ranp.files import new_folder, write_json
from ranp.optional import optional_import

LABELS = ("background", "Anterior", "Posterior")
"""Of the generated data set, those of Task04."""


@dataclass(frozen=True)
class Decathlon(DataSet[Case]):
    """Segmentation in the Decathlon's layout, evaluated by the Dice score of every label.

    Every volume is turned to the same orientation, normalized to mean 0 and deviation 1 on its own, and padded with
    the mean, or cropped, around its centre to one size. Voxels keep their own width. Training volumes are mirrored
    left to right at random and vary in contrast and brightness. For a 2D network training sees single planes, and
    evaluation predicts whole volumes plane by plane.

    Attributes:
        size: Voxels of a sample; large enough for the task's volumes, and divisible as the network asks.
        validation: Fraction of the cases to evaluate on; they are drawn by the seed.
        seed: Of that draw.
        cache: Fraction of the cases to keep in memory.
        augment: Whether to vary training volumes.
        slices: Whether a training sample is one plane of a volume, at a random place of the last axis, which runs from
            feet to head; it then has the shape `(C, X, Y)`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     data = Decathlon(size=(16, 16, 16), validation=0.5)
        ...     data.generate(Path(place, "new"), count=2, seed=0)
        ...     bundle = data.open(Path(place, "new"))
        >>> image, label = bundle.train[0]
        >>> image.shape, label.shape, bundle.class_names
        (torch.Size([1, 16, 16, 16]), torch.Size([16, 16, 16]), ('background', 'Anterior', 'Posterior'))
    """

    size: tuple[int, int, int] = (48, 64, 48)
    validation: float = 0.2
    seed: int = 0
    cache: float = 1.0
    augment: bool = True
    slices: bool = False

    def find(self, folder: Path, report: Report) -> tuple[list[Case], list[Case]]:
        """Cases of `dataset.json`, or of the files if it lists none."""
        if (described := _describe(folder, report)) is None:
            return [], []
        names = described.cases if described.cases is not None else _names(folder)
        cases = {
            name: Case(
                name,
                (folder / "imagesTr" / f"{name}.nii.gz",),
                folder / "labelsTr" / f"{name}.nii.gz",
                described.channels,
                frozenset(range(len(described.labels))),
            )
            for name in names
        }
        train, evaluation = split_names(list(cases), self.validation, self.seed)
        return [cases[name] for name in train], [cases[name] for name in evaluation]

    def read(self, sample: Case, report: Report) -> dict[str, Any] | None:
        """Image `(C, X, Y, Z)` and label `(1, X, Y, Z)` as they are in the files."""
        return read_case(sample, report)

    def prepare(self, folder: Path, train: list[Case], evaluation: list[Case], progress: Progress) -> DataBundle:
        """Cache the volumes."""
        at_least_one(size=self.size)
        described = _describe(folder, fail)
        assert described is not None
        transforms = optional_import("monai.transforms", "data")
        both = ("image", "label")
        fixed = [
            transforms.Orientationd(keys=both, axcodes="RAS", labels=None),
            transforms.NormalizeIntensityd(keys="image", channel_wise=True),
            transforms.ResizeWithPadOrCropd(keys=both, spatial_size=self.size),
        ]
        drawn: list[Any] = [random_slice] if self.slices else []
        if self.augment:
            drawn += [
                transforms.RandFlipd(keys=both, prob=0.5, spatial_axis=0),
                transforms.RandScaleIntensityd(keys="image", prob=0.5, factors=0.1),
                transforms.RandShiftIntensityd(keys="image", prob=0.5, offsets=0.1),
            ]
        optional_import("torchmetrics", "data")
        from ranp.experiments.data._metrics import RegionDice

        regions = {name: (index,) for index, name in enumerate(described.labels) if index}
        return DataBundle(
            train=Volumes(train, fixed, drawn, self.cache, progress),
            evaluation=Volumes(evaluation, fixed, [], self.cache, progress),
            input_shape=(described.channels, *self.size[: 2 if self.slices else 3]),
            class_names=described.labels,
            metric=partial(RegionDice, regions),
            primary_metric="dice",
            predict=predict_slices if self.slices else forward,
        )

    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Write `count` cases: a bright ball whose front half has one label and whose back half the other.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
            InputError: Less than two cases.
        """
        if count < 2:
            raise InputError("count", got=str(count), expected="at least 2 cases, to train and to evaluate")
        random = np.random.default_rng(seed)
        with new_folder(folder) as partial_folder:
            for name in ("imagesTr", "labelsTr"):
                (partial_folder / name).mkdir()
            cases = [f"hippocampus_{number:03d}" for number in range(1, count + 1)]
            for name in cases:
                image, label = self._draw(random)
                write_volume(partial_folder / "imagesTr" / f"{name}.nii.gz", image)
                write_volume(partial_folder / "labelsTr" / f"{name}.nii.gz", label)
            listed = [{key: f"./{key}sTr/{name}.nii.gz" for key in ("image", "label")} for name in cases]
            description = {
                "name": "generated",
                "tensorImageSize": "3D",
                "modality": {"0": "MRI"},
                "labels": {str(index): name for index, name in enumerate(LABELS)},
                "numTraining": count,
                "training": listed,
            }
            write_json(partial_folder / "dataset.json", description)

    def _draw(self, random: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A case a little smaller than `size`; brightness differs a lot from case to case, as it does in MRI."""
        shape = [max(4, size - int(random.integers(0, size // 8 + 1))) for size in self.size]
        centre = tuple(random.uniform(0.4, 0.6, 3))
        inside = balls(shape)(centre, float(random.uniform(0.25, 0.35)))
        label = np.zeros(shape, np.uint8)
        front = int(centre[1] * shape[1])
        label[:, front:][inside[:, front:]] = 1
        label[:, :front][inside[:, :front]] = 2
        image = (20 + 40 * (label == 1) + 60 * (label == 2) + random.normal(0, 5, shape)) * random.uniform(1, 100)
        return image.astype(np.float32), label


def random_slice(case: dict[str, Tensor]) -> dict[str, Tensor]:
    """A plane of the last axis, drawn from torch's global random state."""
    place = int(torch.randint(case["image"].shape[-1], ()))
    return {name: volume[..., place] for name, volume in case.items()}


def predict_slices(model: Model, inputs: Tensor) -> Tensor:
    """Outputs `(N, classes, X, Y, Z)` of a 2D model for volumes `(N, C, X, Y, Z)`, plane by plane of the last axis.

    Example:
        >>> volume = torch.arange(12.0).reshape(1, 1, 2, 2, 3)
        >>> torch.equal(predict_slices(lambda planes: planes + 1, volume), volume + 1)
        True
    """
    outputs = model(inputs.movedim(-1, 1).flatten(0, 1))
    volumes: Tensor = outputs.unflatten(0, (len(inputs), -1)).movedim(1, -1)
    return volumes


@dataclass(frozen=True)
class _Description:
    """What `dataset.json` says: channels, labels in the order of their values, and names of cases if it lists them."""

    channels: int
    labels: tuple[str, ...]
    cases: list[str] | None


def _describe(folder: Path, report: Report) -> _Description | None:
    path = folder / "dataset.json"
    if not path.is_file():
        hint = "point at the folder of one task, such as Task04_Hippocampus"
        report(Problem(path, "no file", "the task's description", hint))
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = {int(value): str(name) for value, name in content["labels"].items()}
        names = tuple(labels[value] for value in range(len(labels)))
        listed = content.get("training")
        cases = None if listed is None else [_name(entry["image"]) for entry in listed]
        return _Description(len(content["modality"]), names, cases)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        expected = "JSON with 'modality' and with 'labels' numbered from 0"
        report(Problem(path, f"a description that cannot be used ({reason})", expected, "copy it again"))
        return None


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".nii")


def _names(folder: Path) -> list[str]:
    """Cases that have an image, a label or both; the archives also hold hidden files of another system."""
    files = [path for part in ("imagesTr", "labelsTr") for path in (folder / part).glob("*.nii.gz")]
    return sorted({_name(path.name) for path in files if not path.name.startswith(".")})
