"""BraTS'18, brain tumors in four MRI modalities (Menze et al., IEEE TMI 2015; Bakas et al., arXiv:1811.02629).

`HGG/<case>/` and `LGG/<case>/` hold `<case>_{flair,t1,t1ce,t2,seg}.nii.gz`: skull-stripped volumes, 0 outside the
brain, and labels 0, 1, 2 and 4.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ranp.errors import InputError
from ranp.experiments.data._base import DataBundle, DataSet, Model, at_least, metrics, split_names
from ranp.experiments.data._files import OnProblem, Problem
from ranp.experiments.data._volumes import BOTH, Case, Volumes, augmentation, ball_mask, read_case, write_volume
from ranp.files import new_folder
from ranp.optional import optional_import
from ranp.progress import Progress

GRADES = ("HGG", "LGG")
MODALITIES = ("flair", "t1", "t1ce", "t2")
CORE, EDEMA, ENHANCING = 1, 2, 4
"""Tumor labels; 3 does not occur and 0 is everything else. This core is the non-enhancing one."""

REGIONS = {"ET": (ENHANCING,), "TC": (CORE, ENHANCING), "WT": (CORE, EDEMA, ENHANCING)}
"""The evaluated regions: enhancing tumor, tumor core and whole tumor."""

BRIGHTNESS = np.array([[100, 120, 180, 0, 150], [110, 60, 90, 0, 80], [110, 60, 95, 0, 200], [100, 150, 190, 0, 140]])
"""Brightness of each modality and label in the generated volumes."""


@dataclass(frozen=True)
class BraTS18(DataSet[Case]):
    """Tumor segmentation, evaluated by the Dice score of three nested regions.

    Every volume is cropped to the bounding box of its brain, and every modality normalized to mean 0 and standard
    deviation 1 over the voxels that are not 0. Training uses random crops, randomly flipped along each axis, with
    slight changes of contrast and brightness; evaluation slides a window of the crop's size over the whole box.
    Targets are labels as in the files, so that a model has 5 outputs. HGG and LGG are split separately.

    Attributes:
        crop: Voxels of a training sample and of the sliding window.
        overlap: Overlap of neighboring windows, as a fraction of their side.
        validation: Fraction of the cases to evaluate on, chosen at random.
        seed: Seed of that choice.
        cache: Fraction of the cases to keep in memory; a case takes about 55 MB.
        augment: Whether to flip training samples and vary their intensities.
    """

    crop: tuple[int, int, int] = (128, 128, 128)
    overlap: float = 0.5
    validation: float = 0.2
    seed: int = 0
    cache: float = 1.0
    augment: bool = True

    def find(self, folder: Path, on_problem: OnProblem) -> tuple[list[Case], list[Case]]:
        """One case per folder in `HGG` and `LGG`."""
        train: list[Case] = []
        evaluation: list[Case] = []
        for grade in GRADES:
            cases = folder / grade
            if not cases.is_dir():
                hint = "give the folder that contains HGG and LGG, with one folder per case"
                on_problem(Problem(cases, "the folder is missing", hint))
                continue
            names = [path.name for path in cases.iterdir() if path.is_dir() and not path.name.startswith(".")]
            for part, chosen in zip((train, evaluation), split_names(names, self.validation, self.seed), strict=True):
                part += [_case(cases / name) for name in chosen]
        return train, evaluation

    def read(self, sample: Case, on_problem: OnProblem) -> dict[str, Any] | None:
        """Image `(4, X, Y, Z)` and labels `(1, X, Y, Z)` as they are in the files."""
        return read_case(sample, on_problem)

    def prepare(self, folder: Path, train: list[Case], evaluation: list[Case], progress: Progress) -> DataBundle:
        """Cache the volumes."""
        at_least(1, crop=self.crop)
        if not 0 <= self.overlap < 1:
            raise InputError("overlap", f"must be a fraction, at least 0 and below 1, but is {self.overlap}")
        transforms = optional_import("monai.transforms", "data")
        deterministic = [
            transforms.CropForegroundd(keys=BOTH, source_key="image", allow_smaller=True),
            transforms.NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
            transforms.SpatialPadd(keys=BOTH, spatial_size=self.crop),
        ]
        random = [transforms.RandSpatialCropd(keys=BOTH, roi_size=self.crop, random_size=False)]
        if self.augment:
            random += augmentation(axes=range(3))
        return DataBundle(
            train=Volumes(train, deterministic, random, self.cache, progress),
            evaluation=Volumes(evaluation, deterministic, [], self.cache, progress),
            input_shape=(len(MODALITIES), *self.crop),
            class_names=("background", "core", "edema", "(none)", "enhancing"),
            metric=partial(metrics().RegionDice, REGIONS),
            primary_metric="dice",
            predict=partial(predict_sliding_window, self.crop, self.overlap),
            evaluation_batch=1,  # Brains have different sizes.
        )

    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Write `count` cases, at least two: spherical brains with tumors of nested balls.

        Volumes are 1.5 times as large as the crop. Every fourth case is an LGG, whose tumor has no enhancing part.
        """
        at_least(2, count=count)
        random = np.random.default_rng(seed)
        with new_folder(folder) as partial_folder:
            for grade in GRADES:
                (partial_folder / grade).mkdir()
            for number in range(1, count + 1):
                grade = GRADES[number % 4 == 0]
                case = _case(partial_folder / grade / f"Brats18_2013_{number}_1")
                for path, volume in zip(case.files, self._generate_case(random, grade), strict=True):
                    write_volume(path, volume)

    def _generate_case(self, random: np.random.Generator, grade: str) -> list[np.ndarray[Any, Any]]:
        """The four modalities and the labels of one case."""
        shape = [size + size // 2 for size in self.crop]
        brain = ball_mask(shape, (0.5, 0.5, 0.5), 0.45)
        center = tuple(random.uniform(0.4, 0.6, 3))
        radius = float(random.uniform(0.22, 0.3))
        labels = np.zeros(shape, np.uint8)
        for label, fraction in ((EDEMA, 1.0), (ENHANCING if grade == "HGG" else CORE, 0.7), (CORE, 0.4)):
            labels[brain & ball_mask(shape, center, fraction * radius)] = label
        gain = random.uniform(1, 5, len(MODALITIES))
        noise = random.normal(0, 8, (len(MODALITIES), *brain.shape))
        images = np.clip(gain[:, None, None, None] * (BRIGHTNESS[:, labels] + noise), 1, None) * brain
        return [*images.astype(np.int16), labels]


def _case(folder: Path) -> Case:
    *images, label = (folder / f"{folder.name}_{suffix}.nii.gz" for suffix in (*MODALITIES, "seg"))
    return Case(tuple(images), label, len(MODALITIES), frozenset({0, CORE, EDEMA, ENHANCING}))


def predict_sliding_window(window: tuple[int, int, int], overlap: float, model: Model, inputs: Tensor) -> Tensor:
    """Predict window by window and blend: whole volumes often need too much memory."""
    slide = optional_import("monai.inferers", "data").sliding_window_inference
    outputs: Tensor = slide(inputs, window, sw_batch_size=1, predictor=model, overlap=overlap, mode="gaussian")
    return outputs
