"""Video files with PyAV: choose and decode frames, crop and scale them, write."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ranp.experiments.data._files import AGAIN, OnProblem, Problem, fail, read_file
from ranp.optional import optional_import

MEAN, DEVIATION = 0.45, 0.225
"""Normalization of pixels in [0, 1], about that of natural images."""


def clip_at(start: int, frames: int, count: int) -> list[int]:
    """Indices of consecutive frames; a video that is too short is repeated."""
    return [(start + offset) % count for offset in range(frames)]


def spaced_starts(clips: int, frames: int, count: int) -> list[int]:
    """First frames of clips spaced evenly from the first to the last possible frame; a single clip is in the middle."""
    last = max(0, count - frames)
    return [last // 2] if clips == 1 else [number * last // (clips - 1) for number in range(clips)]


def decode(path: Path, choose: Callable[[int], Sequence[int]], on_problem: OnProblem = fail) -> Tensor | None:
    """Decode the frames `(frames, H, W, 3)`, 0 to 255, that `choose` lists, given the number of frames of the video.

    A file may contain a few frames fewer than its header says, since codecs count differently; they are replaced by the
    last frame. If more than two frames and more than 5% are missing, the file is damaged.
    """

    def read(path: Path) -> Tensor | None:
        with optional_import("av", "data").open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # The workers of a data loader are parallel already.
            count = stream.frames
            if not count:  # The header does not contain it.
                count = sum(packet.size > 0 for packet in container.demux(stream))
                container.seek(0)
            chosen = choose(count)
            found, last, decoded = _collect(container.decode(stream), set(chosen))
        if last is None or decoded + max(2, count // 20) <= max(chosen):
            on_problem(Problem(path, f"the video ends after {decoded} of {count} frames", AGAIN))
            return None
        return torch.from_numpy(np.stack([found.get(index, last) for index in chosen]))

    return read_file(path, read, "a video", on_problem)


def _collect(frames: Iterable[Any], wanted: set[int]) -> tuple[dict[int, Any], Any, int]:
    """The wanted frames by index, the last decoded one, and how many were decoded."""
    found: dict[int, Any] = {}
    number, frame = -1, None
    for number, frame in enumerate(frames):
        if number in wanted:
            found[number] = frame.to_ndarray(format="rgb24")
        if number >= max(wanted):
            break
    return found, frame.to_ndarray(format="rgb24") if frame is not None else None, number + 1


def crop(pixels: Tensor, box: tuple[int, int, int], size: int, *, flip: bool = False) -> Tensor:
    """Crop a square (top, left, side) from every frame `(frames, H, W, 3)`, scale it, and normalize its pixels.

    Returns `(3, frames, size, size)`, with `flip` mirrored left to right.
    """
    top, left, side = box
    square = pixels[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float()
    square = F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)
    square = square.flip(-1) if flip else square
    return ((square / 255 - MEAN) / DEVIATION).transpose(0, 1).contiguous()


def write_video(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]], *, rate: int = 25) -> None:
    """Write frames `(frames, H, W, 3)`, of even height and width, as MPEG-4."""
    av = optional_import("av", "data")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.codec_context.thread_count = 1
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
