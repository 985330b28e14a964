"""Frames of video files, by PyAV: chosen and decoded, cut and scaled, written."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ranp.experiments.data._problems import Problem, Report, fail, is_there
from ranp.optional import optional_import

MEAN, DEVIATION = 0.45, 0.225
"""Brightness that is subtracted from and divides pixels in [0, 1]: about those of ordinary pictures."""

Choose = Callable[[int], Sequence[int]]
"""Of a video's number of frames, the frames to read."""

AGAIN = "copy or unpack it again"


def clip_at(start: int, frames: int, count: int) -> list[int]:
    """Frames that follow each other; a video that is too short starts over.

    Example:
        >>> clip_at(2, frames=4, count=10), clip_at(0, frames=5, count=3)
        ([2, 3, 4, 5], [0, 1, 2, 0, 1])
    """
    return [(start + offset) % count for offset in range(frames)]


def spaced_starts(clips: int, frames: int, count: int) -> list[int]:
    """First frames of clips spaced uniformly from the first to the last possible place; a single one in the middle.

    Example:
        >>> spaced_starts(3, frames=16, count=26), spaced_starts(1, frames=16, count=26)
        ([0, 5, 10], [5])
    """
    last = max(0, count - frames)
    return [last // 2] if clips == 1 else [number * last // (clips - 1) for number in range(clips)]


def decode(path: Path, choose: Choose, report: Report = fail) -> Tensor | None:
    """Decode chosen frames of a video.

    A file may promise a few frames more than it holds, as codecs count in different ways; the last frame then stands
    for them. If more than a twentieth is missing, and more than two, the file is damaged.

    Args:
        path: Of the video.
        choose: Given the number of frames, says which ones, in any order; frames may repeat.
        report: Takes the problem if there is one.

    Returns:
        Pixels `(frames, H, W, 3)`, 0 to 255; None if there was a problem.
    """
    if not is_there(path, report):
        return None
    av = optional_import("av", "data")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # The workers of a loader are parallel enough.
            count = stream.frames or _count(container, stream)
            chosen = choose(count)
            found, last, decoded = _collect(container.decode(stream), set(chosen))
    except (av.FFmpegError, OSError, ValueError, IndexError, ZeroDivisionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        report(Problem(path, f"a video that cannot be read ({reason})", "a video", AGAIN))
        return None
    if last is None or decoded + max(2, count // 20) <= max(chosen):
        report(Problem(path, f"a video that ends after {decoded} of {count} frames", "all frames", AGAIN))
        return None
    return torch.from_numpy(np.stack([found.get(index, last) for index in chosen]))


def _count(container: Any, stream: Any) -> int:
    """Frames of a file whose header does not tell."""
    count: int = sum(packet.size > 0 for packet in container.demux(stream))
    container.seek(0)
    return count


def _collect(frames: Iterable[Any], wanted: set[int]) -> tuple[dict[int, Any], Any, int]:
    """The wanted frames by number, the last one if some are missing, and how many were decoded."""
    found: dict[int, Any] = {}
    number, frame = -1, None
    for number, frame in enumerate(frames):
        if number in wanted:
            found[number] = frame.to_ndarray(format="rgb24")
        if number >= max(wanted):
            break
    return found, frame.to_ndarray(format="rgb24") if frame is not None else None, number + 1


def cut(pixels: Tensor, box: tuple[int, int, int], size: int, *, mirror: bool = False) -> Tensor:
    """Cut a square out of every frame, scale it, and bring its pixels to about mean 0 and deviation 1.

    Args:
        pixels: `(frames, H, W, 3)`, 0 to 255.
        box: Top, left and side of the square.
        size: Pixels a side that it is scaled to.
        mirror: Swap left and right.

    Returns:
        `(3, frames, size, size)`.
    """
    top, left, side = box
    square = pixels[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float()
    square = F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)
    square = square.flip(-1) if mirror else square
    return ((square / 255 - MEAN) / DEVIATION).transpose(0, 1).contiguous()


def write_video(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]], *, rate: int = 25) -> None:
    """Write frames `(frames, H, W, 3)`, of even height and width, as MPEG-4."""
    av = optional_import("av", "data")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.codec_context.thread_count = 1
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
