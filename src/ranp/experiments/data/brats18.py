"""BraTS'18, brain tumours in four MRI modalities (Menze et al., IEEE TMI 2015; Bakas et al., arXiv:1811.02629).

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
from ranp.experiments.data._base import DataBundle, DataSet, Model, Progress
from ranp.experiments.data._draws import split_names
from ranp.experiments.data._problems import Problem, Report, at_least_one
from ranp.experiments.data._volumes import Case, Volumes, balls, read_case, write_volume
from ranp.files import new_folder
from ranp.optional import optional_import

GRADES = ("HGG", "LGG")
MODALITIES = ("flair", "t1", "t1ce", "t2")
CORE, OEDEMA, ENHANCING = 1, 2, 4
"""Tumour labels; 3 does not occur and 0 is everything else. The core here is what does not enhance."""

REGIONS = {"ET": (ENHANCING,), "TC": (CORE, ENHANCING), "WT": (CORE, OEDEMA, ENHANCING)}
"""What is evaluated: the enhancing tumour, the tumour's core and the whole tumour."""

CLASS_NAMES = ("background", "core", "oedema", "(none)", "enhancing")


@dataclass(frozen=True)
class BraTS18(DataSet[Case]):
    """Tumour segmentation, evaluated by the Dice score of three nested regions.

    Every volume is cut to the box of its brain, and every modality shifted and scaled to mean 0 and deviation 1 over
    the voxels that are not 0; those that are stay 0. Training sees random crops, mirrored along any axis at random,
    with slight changes of contrast and brightness; evaluation slides a window of the crop's size over the whole box.
    A target is a label as in the files, so a model has 5 outputs. HGG and LGG are split each on its own.

    Attributes:
        crop: Voxels of a training sample and of the sliding window.
        overlap: Of neighbouring windows, a fraction of their side.
        validation: Fraction of the cases to evaluate on; they are drawn by the seed.
        seed: Of that draw.
        cache: Fraction of the cases to keep in memory; a case takes about 55 MB.
        augment: Whether to mirror training samples and vary their intensities.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     data = BraTS18(crop=(8, 8, 8))
        ...     data.generate(Path(place, "new"), count=2, seed=0)
        ...     bundle = data.open(Path(place, "new"))
        >>> image, labels = bundle.train[0]
        >>> image.shape, labels.shape, bundle.evaluation[0][0].shape
        (torch.Size([4, 8, 8, 8]), torch.Size([8, 8, 8]), torch.Size([4, 10, 10, 10]))
    """

    crop: tuple[int, int, int] = (128, 128, 128)
    overlap: float = 0.5
    validation: float = 0.2
    seed: int = 0
    cache: float = 1.0
    augment: bool = True

    def find(self, folder: Path, report: Report) -> tuple[list[Case], list[Case]]:
        """A case for every folder in `HGG` and `LGG`."""
        train: list[Case] = []
        evaluation: list[Case] = []
        for grade in GRADES:
            place = folder / grade
            if not place.is_dir():
                expected = "HGG and LGG, with a folder for each case"
                report(Problem(place, "no folder", expected, "point at the folder that holds the two"))
                continue
            names = [path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
            for part, chosen in zip((train, evaluation), split_names(names, self.validation, self.seed), strict=True):
                part += [_case(place / name) for name in chosen]
        return train, evaluation

    def read(self, sample: Case, report: Report) -> dict[str, Any] | None:
        """Image `(4, X, Y, Z)` and labels `(1, X, Y, Z)` as they are in the files."""
        return read_case(sample, report)

    def prepare(self, folder: Path, train: list[Case], evaluation: list[Case], progress: Progress) -> DataBundle:
        """Cache the volumes."""
        at_least_one(crop=self.crop)
        if not 0 <= self.overlap < 1:
            raise InputError("overlap", got=str(self.overlap), expected="a fraction, at least 0 and below 1")
        transforms = optional_import("monai.transforms", "data")
        both = ("image", "label")
        fixed = [
            transforms.CropForegroundd(keys=both, source_key="image", allow_smaller=True),
            transforms.NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
            transforms.SpatialPadd(keys=both, spatial_size=self.crop),
        ]
        drawn = [transforms.RandSpatialCropd(keys=both, roi_size=self.crop, random_size=False)]
        if self.augment:
            drawn += [transforms.RandFlipd(keys=both, prob=0.5, spatial_axis=axis) for axis in range(3)]
            drawn += [
                transforms.RandScaleIntensityd(keys="image", prob=0.5, factors=0.1),
                transforms.RandShiftIntensityd(keys="image", prob=0.5, offsets=0.1),
            ]
        optional_import("torchmetrics", "data")
        from ranp.experiments.data._metrics import RegionDice

        return DataBundle(
            train=Volumes(train, fixed, drawn, self.cache, progress),
            evaluation=Volumes(evaluation, fixed, [], self.cache, progress),
            input_shape=(len(MODALITIES), *self.crop),
            class_names=CLASS_NAMES,
            metric=partial(RegionDice, REGIONS),
            primary_metric="dice",
            predict=partial(_slide, self.crop, self.overlap),
            evaluation_batch=1,  # Brains differ in size.
        )

    def generate(self, folder: Path | str, *, count: int = 8, seed: int = 0) -> None:
        """Write `count` cases, every fourth of them an LGG: a head with a tumour of nested balls.

        A volume is half as large again as the crop. What enhances in an HGG does not in an LGG.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
            InputError: Less than two cases.
        """
        if count < 2:
            raise InputError("count", got=str(count), expected="at least 2 cases, to train and to evaluate")
        random = np.random.default_rng(seed)
        with new_folder(folder) as partial_folder:
            for grade in GRADES:
                (partial_folder / grade).mkdir()
            for number in range(1, count + 1):
                grade = GRADES[number % 4 == 0]
                case = _case(partial_folder / grade / f"Brats18_2013_{number}_1")
                case.label.parent.mkdir()
                for path, volume in zip(case.files, self._draw(random, grade), strict=True):
                    write_volume(path, volume)

    def _draw(self, random: np.random.Generator, grade: str) -> list[np.ndarray[Any, Any]]:
        """The four modalities and the labels of one case."""
        ball = balls([size + size // 2 for size in self.crop])
        brain = ball((0.5, 0.5, 0.5), 0.45)
        centre = tuple(random.uniform(0.4, 0.6, 3))
        reach = float(random.uniform(0.22, 0.3))
        labels = np.zeros(brain.shape, np.uint8)
        for label, radius in (
            (OEDEMA, reach),
            (ENHANCING if grade == "HGG" else CORE, 0.7 * reach),
            (CORE, 0.4 * reach),
        ):
            labels[brain & ball(centre, radius)] = label
        gain = random.uniform(1, 5, len(MODALITIES))
        noise = random.normal(0, 8, (len(MODALITIES), *brain.shape))
        images = np.clip(gain[:, None, None, None] * (BRIGHTNESS[:, labels] + noise), 1, None) * brain
        return [*images.astype(np.int16), labels]


BRIGHTNESS = np.array(
    [
        [100, 120, 180, 0, 150],
        [110, 60, 90, 0, 80],
        [110, 60, 95, 0, 200],
        [100, 150, 190, 0, 140],
    ]
)
"""Of the generated volumes: of every modality and label."""


def _case(folder: Path) -> Case:
    images = tuple(folder / f"{folder.name}_{modality}.nii.gz" for modality in MODALITIES)
    label = folder / f"{folder.name}_seg.nii.gz"
    return Case(folder.name, images, label, len(MODALITIES), frozenset({0, CORE, OEDEMA, ENHANCING}))


def _slide(window: tuple[int, int, int], overlap: float, model: Model, inputs: Tensor) -> Tensor:
    """Predict window by window and blend: a whole volume seldom fits a network's memory."""
    slide = optional_import("monai.inferers", "data").sliding_window_inference
    outputs: Tensor = slide(inputs, window, sw_batch_size=1, predictor=model, overlap=overlap, mode="gaussian")
    return outputs
