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

from ranp.experiments.data._base import DataBundle, DataSet, Model, at_least, forward, metrics, split_names
from ranp.experiments.data._files import AGAIN, OnProblem, Problem, fail, file_exists
from ranp.experiments.data._volumes import BOTH, Case, Volumes, augmentation, ball_mask, read_case, write_volume
from ranp.files import new_folder, write_json
from ranp.optional import optional_import
from ranp.progress import Progress

PARTS = ("imagesTr", "labelsTr")
LABELS = ("background", "Anterior", "Posterior")
"""Labels of the generated data set: those of Task04."""


@dataclass(frozen=True)
class Decathlon(DataSet[Case]):
    """Segmentation in the Decathlon's layout, evaluated by the Dice score of every label.

    Every volume is reoriented to RAS, normalized to mean 0 and standard deviation 1, and center-cropped, or padded with
    the mean, to one size; it is not resampled. Training volumes are randomly flipped left to right and vary in
    contrast and brightness. A 2D network is trained on single slices, and evaluated on whole volumes slice by slice.

    Attributes:
        size: Voxels of a sample; large enough for the task's volumes, and divisible as the network requires.
        validation: Fraction of the cases to evaluate on, chosen at random.
        seed: Seed of that choice.
        cache: Fraction of the cases to keep in memory.
        augment: Whether to augment training volumes.
        slices: Whether a training sample is a random axial slice `(C, X, Y)` of a volume.
    """

    size: tuple[int, int, int] = (48, 64, 48)
    validation: float = 0.2
    seed: int = 0
    cache: float = 1.0
    augment: bool = True
    slices: bool = False

    def find(self, folder: Path, on_problem: OnProblem) -> tuple[list[Case], list[Case]]:
        """The cases listed in `dataset.json`, or those of the files if it lists none."""
        if (description := _describe(folder, on_problem)) is None:
            return [], []
        channels, label_names, cases = description
        labels = frozenset(range(len(label_names)))

        def case(name: str) -> Case:
            image, label = (folder / part / f"{name}.nii.gz" for part in PARTS)
            return Case((image,), label, channels, labels)

        train, evaluation = split_names(list(cases), self.validation, self.seed)
        return [case(name) for name in train], [case(name) for name in evaluation]

    def read(self, sample: Case, on_problem: OnProblem) -> dict[str, Any] | None:
        """Image `(C, X, Y, Z)` and label `(1, X, Y, Z)` as they are in the files."""
        return read_case(sample, on_problem)

    def prepare(self, folder: Path, train: list[Case], evaluation: list[Case], progress: Progress) -> DataBundle:
        """Cache the volumes."""
        at_least(1, size=self.size)
        description = _describe(folder, fail)
        assert description is not None
        channels, labels, _ = description
        transforms = optional_import("monai.transforms", "data")
        deterministic = [
            transforms.Orientationd(keys=BOTH, axcodes="RAS", labels=None),
            transforms.NormalizeIntensityd(keys="image", channel_wise=True),
            transforms.ResizeWithPadOrCropd(keys=BOTH, spatial_size=self.size),
        ]
        random: list[Any] = [random_slice] if self.slices else []
        if self.augment:
            random += augmentation(axes=[0])
        regions = {name: (index,) for index, name in enumerate(labels) if index}
        return DataBundle(
            train=Volumes(train, deterministic, random, self.cache, progress),
            evaluation=Volumes(evaluation, deterministic, [], self.cache, progress),
            input_shape=(channels, *self.size[: 2 if self.slices else 3]),
            class_names=labels,
            metric=partial(metrics().RegionDice, regions),
            primary_metric="dice",
            predict=predict_slices if self.slices else forward,
        )

    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Write `count` cases, at least two: bright balls with one label in front and another behind."""
        at_least(2, count=count)
        random = np.random.default_rng(seed)
        with new_folder(folder) as partial_folder:
            cases = [f"hippocampus_{number:03d}" for number in range(1, count + 1)]
            for name in cases:
                for part, volume in zip(PARTS, self._generate_case(random), strict=True):
                    write_volume(partial_folder / part / f"{name}.nii.gz", volume)
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

    def _generate_case(self, random: np.random.Generator) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """A case slightly smaller than `size`; brightness differs much between cases, as in MRI."""
        shape = [max(4, size - int(random.integers(0, size // 8 + 1))) for size in self.size]
        center = tuple(random.uniform(0.4, 0.6, 3))
        inside = ball_mask(shape, center, float(random.uniform(0.25, 0.35)))
        label = np.zeros(shape, np.uint8)
        front = int(center[1] * shape[1])
        label[:, front:][inside[:, front:]] = 1
        label[:, :front][inside[:, :front]] = 2
        image = (20 + 40 * (label == 1) + 60 * (label == 2) + random.normal(0, 5, shape)) * random.uniform(1, 100)
        return image.astype(np.float32), label


def random_slice(case: dict[str, Tensor]) -> dict[str, Tensor]:
    """A slice at a random index of the last axis."""
    index = int(torch.randint(case["image"].shape[-1], ()))
    return {name: volume[..., index] for name, volume in case.items()}


def predict_slices(model: Model, inputs: Tensor) -> Tensor:
    """Outputs `(N, classes, X, Y, Z)` of a 2D model for every slice along the last axis of `(N, C, X, Y, Z)`."""
    outputs = model(inputs.movedim(-1, 1).flatten(0, 1))
    volumes: Tensor = outputs.unflatten(0, (len(inputs), -1)).movedim(1, -1)
    return volumes


def _describe(folder: Path, on_problem: OnProblem) -> tuple[int, tuple[str, ...], set[str]] | None:
    """The content of `dataset.json`: number of channels, labels in the order of their values, names of the cases."""
    path = folder / "dataset.json"
    if not file_exists(path, on_problem, "give the folder of one task, such as Task04_Hippocampus"):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = {int(value): str(name) for value, name in content["labels"].items()}
        names = tuple(labels[value] for value in range(len(labels)))
        if (listed := content.get("training")) is not None:
            cases = {_name(entry["image"]) for entry in listed}
        else:  # Cases that have an image, a label or both; the archives also contain hidden files of macOS.
            files = [path.name for part in PARTS for path in (folder / part).glob("*.nii.gz")]
            cases = {_name(name) for name in files if not name.startswith(".")}
        return len(content["modality"]), names, cases
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        message = f"it must be JSON with 'modality' and with 'labels' numbered from 0 ({reason})"
        on_problem(Problem(path, message, AGAIN))
        return None


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".nii")
