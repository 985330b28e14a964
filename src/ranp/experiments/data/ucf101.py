"""UCF101, actions in videos (Soomro et al., arXiv:1212.0402).

`UCF-101/<Class>/v_<Class>_g<group>_c<clip>.avi`, or the class folders without `UCF-101` above them, and the official
lists in `ucfTrainTestlist/`: `classInd.txt`, and `trainlist0<split>.txt` and `testlist0<split>.txt` of three splits.
Other videos and classes work too, with lists in the same format.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ranp.experiments.data._base import DataBundle, DataSet, LoadedSamples, Model, TensorPair, at_least, metrics
from ranp.experiments.data._files import OnProblem, Problem, fail, file_exists
from ranp.experiments.data.sampler import sample_generator
from ranp.experiments.data.video import clip_at, crop, decode, spaced_starts, write_video
from ranp.files import new_folder
from ranp.optional import optional_import
from ranp.progress import Progress

LISTS, VIDEOS = "ucfTrainTestlist", "UCF-101"
SMALLEST = 0.66  # Side of the smallest training crop, as a fraction of the frame's shorter side.
HINT = "unpack UCF101TrainTestSplits-RecognitionTask.zip into the data set's folder"
COLORS = {"Red": (230, 40, 40), "Green": (40, 230, 40), "Blue": (40, 40, 230)}  # Of the discs in generated videos.


@dataclass(frozen=True)
class Video:
    """A video file and the index of its class."""

    path: Path
    label: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The video."""
        return (self.path,)


@dataclass(frozen=True)
class UCF101(DataSet[Video]):
    """Action recognition, evaluated by the top-1 and top-5 accuracy of videos and of clips.

    A training sample is a clip from a random position of its video: a random square of random size, scaled, and flipped
    with probability 1/2. An evaluation sample is a whole video: `clips` evenly spaced clips of the largest central
    square. Videos are decoded when they are accessed, so use several workers.

    Attributes:
        size: Pixels per side.
        frames: Consecutive frames per clip.
        clips: Clips per video, for evaluation.
        split: Number of the official split.
        augment: Whether to crop and flip training clips randomly; their first frame is random in any case.
    """

    size: int = 112
    frames: int = 16
    clips: int = 10
    split: Literal[1, 2, 3] = 1
    augment: bool = True

    def find(self, folder: Path, on_problem: OnProblem) -> tuple[list[Video], list[Video]]:
        """The videos in the official lists."""
        if (classes := _classes(folder, on_problem)) is None:
            return [], []
        train, test = (folder / LISTS / f"{part}list{self.split:02d}.txt" for part in ("train", "test"))
        return _listed(folder, train, classes, on_problem), _listed(folder, test, classes, on_problem)

    def read(self, sample: Video, on_problem: OnProblem) -> Tensor | None:
        """Decode all frames; returns the last, `(1, H, W, 3)`."""
        return decode(sample.path, lambda count: [count - 1], on_problem)

    def prepare(self, folder: Path, train: list[Video], evaluation: list[Video], progress: Progress) -> DataBundle:
        """Videos are decoded when they are accessed."""
        at_least(1, size=self.size, frames=self.frames, clips=self.clips)
        classes = _classes(folder, fail)
        assert classes is not None
        optional_import("av", "data")
        return DataBundle(
            train=LoadedSamples(train, partial(random_clip, self)),
            evaluation=LoadedSamples(evaluation, partial(spaced_clips, self)),
            input_shape=(3, self.frames, self.size, self.size),
            class_names=classes,
            metric=metrics().ClipAccuracy,
            primary_metric="top1",
            predict=predict_clips,
        )

    def generate(self, folder: Path | str, *, count: int = 6, seed: int = 0) -> None:
        """Write `count` videos, at least three, of each of six classes; a third of them is for testing in every split.

        A disc oscillates; its color and direction determine the class. A video is twice as long as a clip.
        """
        at_least(3, count=count)  # One for each split.
        random = np.random.default_rng(seed)
        classes = [color + direction for color, direction in product(COLORS, ("Horizontal", "Vertical"))]
        with new_folder(folder) as partial_folder:
            (partial_folder / LISTS).mkdir()
            _write_lists(partial_folder / LISTS, classes, count)
            for name, group in product(classes, range(1, count + 1)):
                write_video(partial_folder / VIDEOS / _path(name, group), self._generate_video(name, random))

    def _generate_video(self, name: str, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """A moving disc `(frames, H, W, 3)` on a static background; frames are wider than high."""
        height = (self.size * 5 // 4 + 1) // 2 * 2
        width = (height * 4 // 3 + 1) // 2 * 2
        time = np.arange(2 * self.frames)[:, None, None]
        offset = 0.3 * np.sin(2 * np.pi * (time / 16 + random.random()))
        y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in (height, width))
        across, along = random.uniform(-0.2, 0.2, 2)
        horizontal = name.endswith("Horizontal")
        x0, y0 = (offset + along, across) if horizontal else (across, offset + along)
        # About round in pixels.
        inside = ((x[None, None, :] - x0) / 0.75) ** 2 + (y[None, :, None] - y0) ** 2 < 0.15**2
        color = np.array(next(rgb for color, rgb in COLORS.items() if name.startswith(color)))
        background = random.integers(60, 120, (height, width, 1))
        return np.where(inside[..., None], color, background).astype(np.uint8)


def random_clip(settings: UCF101, video: Video) -> TensorPair:
    """A random clip `(3, frames, size, size)` of the video, and its class."""
    position, scale, down, right, flip = torch.rand(5, generator=sample_generator()).tolist()

    def choose(count: int) -> list[int]:
        return clip_at(int(position * (max(0, count - settings.frames) + 1)), settings.frames, count)

    pixels = decode(video.path, choose)
    assert pixels is not None
    box = central_square(pixels)
    if settings.augment:
        height, width = pixels.shape[1:3]
        side = max(1, round(min(height, width) * (SMALLEST + (1 - SMALLEST) * scale)))
        box = int(down * (height - side + 1)), int(right * (width - side + 1)), side
    clip = crop(pixels, box, settings.size, flip=settings.augment and flip < 0.5)
    return clip, torch.tensor(video.label)


def spaced_clips(settings: UCF101, video: Video) -> TensorPair:
    """Evenly spaced clips `(clips, 3, frames, size, size)` of the video, and its class."""

    def choose(count: int) -> list[int]:
        starts = spaced_starts(settings.clips, settings.frames, count)
        return [number for start in starts for number in clip_at(start, settings.frames, count)]

    pixels = decode(video.path, choose)
    assert pixels is not None
    clips = [crop(clip, central_square(clip), settings.size) for clip in pixels.split(settings.frames)]
    return torch.stack(clips), torch.tensor(video.label)


def central_square(pixels: Tensor) -> tuple[int, int, int]:
    """Top, left and side of the largest central square of frames `(frames, H, W, 3)`."""
    height, width = pixels.shape[1:3]
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def predict_clips(model: Model, inputs: Tensor) -> Tensor:
    """Scores `(N, clips, classes)` of clips `(N, clips, 3, frames, size, size)`."""
    outputs: Tensor = model(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
    return outputs


def _classes(folder: Path, on_problem: OnProblem) -> tuple[str, ...] | None:
    path = folder / LISTS / "classInd.txt"
    if (lines := _lines(path, on_problem)) is None:
        return None
    numbers = [line[0] for line in lines]
    if not lines or any(len(line) != 2 for line in lines) or numbers != [str(n + 1) for n in range(len(lines))]:
        on_problem(Problem(path, "every line must consist of a number, counting from 1, and the name of a class", HINT))
        return None
    return tuple(name for _, name in lines)


def _listed(folder: Path, path: Path, classes: tuple[str, ...], on_problem: OnProblem) -> list[Video]:
    """Videos of a list: each line is a path and, in the lists for training, the number of the class."""
    numbers = {name: index for index, name in enumerate(classes)}
    root = folder / VIDEOS if (folder / VIDEOS).is_dir() else folder
    videos = []
    for number, line in enumerate(_lines(path, on_problem) or [], start=1):
        label = numbers.get(line[0].partition("/")[0])
        if label is None or (len(line) > 1 and line[1] != str(label + 1)):
            message = f"'{' '.join(line)}' in line {number} does not match the classes in classInd.txt"
            on_problem(Problem(path, message, HINT))
        else:
            videos.append(Video(root / line[0], label))
    return videos


def _lines(path: Path, on_problem: OnProblem) -> list[list[str]] | None:
    """The words of all lines that are not empty."""
    if not file_exists(path, on_problem, HINT):
        return None
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _path(name: str, group: int) -> str:
    return f"{name}/v_{name}_g{group:02d}_c01.avi"


def _write_lists(folder: Path, classes: list[str], count: int) -> None:
    """The lists of three splits; like the official one, `trainlist01.txt` has CRLF line ends."""
    numbered = list(enumerate(classes, start=1))
    (folder / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in numbered))
    videos = [(_path(name, group), number, group) for (number, name), group in product(numbered, range(1, count + 1))]
    for split in (1, 2, 3):
        train = [f"{path} {number}\n" for path, number, group in videos if group % 3 != split % 3]
        test = [f"{path}\n" for path, _, group in videos if group % 3 == split % 3]
        newline = "\r\n" if split == 1 else "\n"
        (folder / f"trainlist{split:02d}.txt").write_text("".join(train), newline=newline)
        (folder / f"testlist{split:02d}.txt").write_text("".join(test), newline="\n")
