"""UCF101, actions in videos (Soomro et al., arXiv:1212.0402).

`UCF-101/<Class>/v_<Class>_g<group>_c<clip>.avi`, or the class folders without `UCF-101` above them, and the official
lists in `ucfTrainTestlist/`: `classInd.txt`, and `trainlist0<split>.txt` and `testlist0<split>.txt` of three splits.
Other videos and classes will do, if lists of the same form name them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ranp.errors import InputError
from ranp.experiments.data._base import DataBundle, DataSet, Model, Progress, Sample
from ranp.experiments.data._draws import drawn_generator
from ranp.experiments.data._problems import Problem, Report, at_least_one, fail
from ranp.experiments.data._video import clip_at, cut, decode, spaced_starts, write_video
from ranp.files import new_folder
from ranp.optional import optional_import

LISTS, VIDEOS = "ucfTrainTestlist", "UCF-101"
SPLITS = (1, 2, 3)
SMALLEST = 0.66
"""Side of the smallest training crop, as a fraction of the frame's shorter side."""


@dataclass(frozen=True)
class Video:
    """A video that has not been read, and the index of its class."""

    path: Path
    label: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The video alone."""
        return (self.path,)


@dataclass(frozen=True)
class UCF101(DataSet[Video]):
    """Action recognition, evaluated by the share of videos and of clips whose class is best, or among the best five.

    A training sample is a clip from a random place of its video: a random square of random size, scaled, mirrored
    every other time. An evaluation sample is a whole video: `clips` clips from evenly spaced places, of the largest
    square in the middle. Videos are decoded when they are asked for, which is what a loader's workers are for.

    Attributes:
        size: Pixels a side.
        frames: Of a clip, one after the other.
        clips: Of a video, for evaluation.
        split: Of the official lists.
        augment: Whether training clips vary in square and mirroring; their place varies in any case.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     data = UCF101(size=16, frames=4, clips=2)
        ...     data.generate(Path(place, "new"), count=3, seed=0)
        ...     bundle = data.open(Path(place, "new"))
        ...     bundle.train[0][0].shape, bundle.evaluation[0][0].shape
        (torch.Size([3, 4, 16, 16]), torch.Size([2, 3, 4, 16, 16]))
    """

    size: int = 112
    frames: int = 16
    clips: int = 10
    split: Literal[1, 2, 3] = 1
    augment: bool = True

    def find(self, folder: Path, report: Report) -> tuple[list[Video], list[Video]]:
        """Videos that the lists name."""
        classes = _classes(folder, report)
        if classes is None:
            return [], []
        numbers = {name: index for index, name in enumerate(classes)}
        train, evaluation = (
            _listed(folder, f"{part}list{self.split:02d}.txt", numbers, report) for part in ("train", "test")
        )
        return train, evaluation

    def read(self, sample: Video, report: Report) -> Tensor | None:
        """Decode to the end; gives the last frame `(1, H, W, 3)`."""
        return decode(sample.path, lambda count: [count - 1], report)

    def prepare(self, folder: Path, train: list[Video], evaluation: list[Video], progress: Progress) -> DataBundle:
        """Videos are decoded when they are asked for."""
        at_least_one(size=self.size, frames=self.frames, clips=self.clips)
        classes = _classes(folder, fail)
        assert classes is not None
        optional_import("av", "data")
        optional_import("torchmetrics", "data")
        from ranp.experiments.data._metrics import ClipAccuracy

        return DataBundle(
            train=Clips(train, self),
            evaluation=SpacedClips(evaluation, self),
            input_shape=(3, self.frames, self.size, self.size),
            class_names=classes,
            metric=ClipAccuracy,
            primary_metric="top1",
            predict=_each_clip,
        )

    def generate(self, folder: Path | str, *, count: int = 6, seed: int = 0) -> None:
        """Write `count` videos of each of six classes, a third of which every split tests on.

        A disc moves to and fro; colour and direction make the class. A video is twice as long as a clip.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
            InputError: Less than three videos.
        """
        if count < 3:
            raise InputError("count", got=str(count), expected="at least 3 videos a class, for three splits")
        random = np.random.default_rng(seed)
        classes = [f"{colour}{way}" for colour in COLOURS for way in ("Horizontal", "Vertical")]
        with new_folder(folder) as partial_folder:
            (partial_folder / LISTS).mkdir()
            _write_lists(partial_folder / LISTS, classes, count)
            for name in classes:
                (partial_folder / VIDEOS / name).mkdir(parents=True)
                for group in range(1, count + 1):
                    write_video(partial_folder / VIDEOS / _path(name, group), self._draw(name, random))

    def _draw(self, name: str, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """A disc `(frames, H, W, 3)` on a background that stands still; frames are wider than high."""
        height = (self.size * 5 // 4 + 1) // 2 * 2
        width = (height * 4 // 3 + 1) // 2 * 2
        time = np.arange(2 * self.frames)[:, None, None]
        way = 0.3 * np.sin(2 * np.pi * (time / 16 + random.random()))
        y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in (height, width))
        across, along = random.uniform(-0.2, 0.2, 2)
        horizontal = name.endswith("Horizontal")
        x0, y0 = (way + along, across) if horizontal else (across, way + along)
        # Half as wide as high: in pixels it is about round.
        inside = ((x[None, None, :] - x0) / 0.75) ** 2 + (y[None, :, None] - y0) ** 2 < 0.15**2
        colour = np.array(next(rgb for colour, rgb in COLOURS.items() if name.startswith(colour)))
        background = random.integers(60, 120, (height, width, 1))
        return np.where(inside[..., None], colour, background).astype(np.uint8)


COLOURS = {"Red": (230, 40, 40), "Green": (40, 230, 40), "Blue": (40, 40, 230)}
"""Of the generated videos' discs."""


class _OfVideos(Dataset[Sample]):
    """One sample of each video."""

    def __init__(self, videos: list[Video], settings: UCF101) -> None:
        self.videos, self.settings = videos, settings

    def __len__(self) -> int:
        return len(self.videos)


class Clips(_OfVideos):
    """A random clip `(3, frames, size, size)` of each video, and the video's class."""

    def __getitem__(self, index: int) -> Sample:
        video, settings = self.videos[index], self.settings
        generator = drawn_generator()
        place, scale, down, right, mirror = torch.rand(5, generator=generator).tolist()

        def choose(count: int) -> list[int]:
            return clip_at(int(place * (max(0, count - settings.frames) + 1)), settings.frames, count)

        pixels = decode(video.path, choose)
        assert pixels is not None
        box = middle(pixels)
        if settings.augment:
            height, width = pixels.shape[1:3]
            side = max(1, round(min(height, width) * (SMALLEST + (1 - SMALLEST) * scale)))
            box = int(down * (height - side + 1)), int(right * (width - side + 1)), side
        clip = cut(pixels, box, settings.size, mirror=settings.augment and mirror < 0.5)
        return clip, torch.tensor(video.label)


class SpacedClips(_OfVideos):
    """Evenly spaced clips `(clips, 3, frames, size, size)` of each video, and the video's class."""

    def __getitem__(self, index: int) -> Sample:
        video, settings = self.videos[index], self.settings

        def choose(count: int) -> list[int]:
            starts = spaced_starts(settings.clips, settings.frames, count)
            return [number for start in starts for number in clip_at(start, settings.frames, count)]

        pixels = decode(video.path, choose)
        assert pixels is not None
        clips = [cut(clip, middle(clip), settings.size) for clip in pixels.split(settings.frames)]
        return torch.stack(clips), torch.tensor(video.label)


def middle(pixels: Tensor) -> tuple[int, int, int]:
    """Top, left and side of the largest square in the middle of frames `(frames, H, W, 3)`."""
    height, width = pixels.shape[1:3]
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def _each_clip(model: Model, inputs: Tensor) -> Tensor:
    """Scores `(N, clips, classes)` of clips `(N, clips, 3, frames, size, size)`."""
    outputs: Tensor = model(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
    return outputs


def _classes(folder: Path, report: Report) -> tuple[str, ...] | None:
    path = folder / LISTS / "classInd.txt"
    if (lines := _lines(path, report)) is None:
        return None
    numbers = [line[0] for line in lines]
    if not lines or any(len(line) != 2 for line in lines) or numbers != [str(n + 1) for n in range(len(lines))]:
        report(Problem(path, "lines that are no classes", "a number, from 1, and a name a line", HINT))
        return None
    return tuple(name for _, name in lines)


def _listed(folder: Path, name: str, numbers: dict[str, int], report: Report) -> list[Video]:
    """Videos of a list: a path and, in the lists for training, a class's number a line."""
    path = folder / LISTS / name
    place = folder / VIDEOS if (folder / VIDEOS).is_dir() else folder
    videos = []
    for number, line in enumerate(_lines(path, report) or [], start=1):
        label = numbers.get(line[0].partition("/")[0])
        if label is None or (len(line) > 1 and line[1] != str(label + 1)):
            got = f"'{' '.join(line)}' in line {number}"
            report(Problem(path, got, "a class and its number as in classInd.txt", HINT))
        else:
            videos.append(Video(place / line[0], label))
    return videos


HINT = "unpack UCF101TrainTestSplits-RecognitionTask.zip into the data set's folder"


def _lines(path: Path, report: Report) -> list[list[str]] | None:
    """Words of all lines that have some; some lists end their lines in two characters."""
    if not path.is_file():
        report(Problem(path, "no file", "an official list", HINT))
        return None
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _path(name: str, group: int) -> str:
    return f"{name}/v_{name}_g{group:02d}_c01.avi"


def _write_lists(folder: Path, classes: list[str], count: int) -> None:
    """The lists of three splits; `trainlist01.txt` has the line ends of the official one."""
    (folder / "classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(classes, start=1)))
    for split in SPLITS:
        train, test = [], []
        for number, name in enumerate(classes, start=1):
            for group in range(1, count + 1):
                if group % 3 == split % 3:
                    test.append(_path(name, group))
                else:
                    train.append(f"{_path(name, group)} {number}")
        ends = "\r\n" if split == 1 else "\n"
        (folder / f"trainlist{split:02d}.txt").write_bytes("".join(line + ends for line in train).encode())
        (folder / f"testlist{split:02d}.txt").write_bytes("".join(line + "\n" for line in test).encode())
