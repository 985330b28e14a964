"""The largest batch and the largest inputs that fit into memory, by prediction alone."""

from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

from ranp.arguments import Count, Must, NonNegative, checked
from ranp.costs.memory import MemoryPrediction
from ranp.errors import InputError, TraceError
from ranp.graph import Ints
from ranp.memory._predict import MemoryPredictor, Size

MARGIN = 0.1
"""Share of the memory left free. On a GPU workspaces of cuDNN and what fragmentation wastes cannot be predicted; on the
CPU what convolutions allocate while they run is an estimate."""
Margin: TypeAlias = Annotated[float, Must(lambda value: 0 <= value < 1, "a share in [0, 1)", "for example 0.1")]
_MOST = 1 << 16
Multiple: TypeAlias = Annotated[
    Size,
    Must(
        lambda value: all(1 <= n <= _MOST for n in (value if isinstance(value, Sequence) else [value])),
        f"whole numbers from 1 to {_MOST}",
        "for example 16",
    ),
]
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


@checked
def largest_batch(
    predictor: MemoryPredictor,
    limit_bytes: NonNegative,
    *,
    widths: Ints | None = None,
    size: Size | None = None,
    margin: Margin = MARGIN,
) -> int:
    """The largest batch whose training step fits into memory; 0 if not even one sample does.

    Args:
        predictor: Predicts the memory.
        limit_bytes: The memory.
        widths: Width of every group of the graph; by default the full ones.
        size: Spatial size of the inputs; by default that of the example.
        margin: Share of the limit to leave free.

    Example:
        >>> import torch
        >>> predictor = MemoryPredictor(torch.nn.Conv3d(1, 8, 3), torch.zeros(1, 1, 10, 10, 10))
        >>> largest_batch(predictor, 2**21) > largest_batch(predictor, 2**20) > 1
        True
    """
    limit = limit_bytes * (1 - margin)
    return _largest(lambda batch: predictor.predict(widths, batch=batch, size=size), limit, predictor.batch, 1)


@checked
def largest_size(
    predictor: MemoryPredictor,
    limit_bytes: NonNegative,
    *,
    widths: Ints | None = None,
    batch: Count | None = None,
    aspect: Sequence[float] | None = None,
    multiple: Multiple | None = None,
    margin: Margin = MARGIN,
) -> tuple[int, ...]:
    """The largest spatial size of the inputs whose training step fits into memory; empty if none does.

    Args:
        predictor: Predicts the memory.
        limit_bytes: The memory.
        widths: Width of every group of the graph; by default the full ones.
        batch: Number of samples; by default that of the example.
        aspect: Ratio of the sides, such as `(2, 2, 1)`; by default all are equal.
        multiple: Every side is a multiple of this, or of its own number; by default of the smallest power of two such
            that the network accepts its odd multiples.
        margin: Share of the limit to leave free.

    Raises:
        InputError: The network accepts no size but that of the example.
    """
    dimensions = len(predictor.size)
    ratios = [float(side) for side in aspect or (1,) * dimensions]
    if len(ratios) != dimensions or min(ratios) <= 0:
        raise InputError("aspect", got=str(aspect), expected=f"{dimensions} positive numbers")
    step = multiple or size_multiple(predictor)
    steps = (step,) * dimensions if isinstance(step, int) else tuple(step)
    shares = [ratio / step for ratio, step in zip(ratios, steps, strict=True)]

    def size(count: int) -> tuple[int, ...]:
        return tuple(step * round(count * share / min(shares)) for step, share in zip(steps, shares, strict=True))

    # The network is known to accept sizes from that of the example on.
    first = max(-(-side // least) for side, least in zip(predictor.size, size(1), strict=True))
    limit = limit_bytes * (1 - margin)
    count = _largest(lambda count: predictor.predict(widths, batch=batch, size=size(count)), limit, first, dimensions)
    return size(count) if count else ()


def size_multiple(predictor: MemoryPredictor) -> int:
    """The smallest power of two such that the network accepts inputs whose sides are odd multiples of it.

    Raises:
        InputError: There is none up to 64.
    """
    for step in _MULTIPLES:
        odd = (max(predictor.size) // step + 1) | 1  # not the size of the example itself
        try:
            predictor.predict(size=step * odd)
        except TraceError as error:
            refusal = error
        else:
            return step
    hint = "give the multiple that it accepts"
    raise InputError("largest_size", "the network accepts no other size of inputs", hint=hint) from refusal


def _largest(predict: Callable[[int], MemoryPrediction], limit: float, first: int, power: int) -> int:
    """The largest count that fits, or 0; the memory is about linear in the count to that power.

    Every prediction narrows the range, and a line through the last two says where to look next, at first through the
    origin: four predictions are usually enough.
    """
    low, high, known = 0, _MOST, [(0.0, 0)]
    guess = first
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        try:
            amount = predict(guess).process_bytes
        except TraceError:
            if guess >= first:
                raise
            break  # The network does not accept inputs as small as that.
        low, high = (guess, high) if amount <= limit else (low, guess)
        known.append((float(guess) ** power, amount))
        guess = _next(known[-2:], limit, power, low, high, halve=len(known) > 7)
    return low


def _next(known: Sequence[tuple[float, int]], limit: float, power: int, low: int, high: int, *, halve: bool) -> int:
    (x, y), (u, v) = known
    slope = (v - y) / (u - x)
    if slope <= 0 or halve:
        return (low + high) // 2
    guess = int(max(u + (limit - v) / slope, 0) ** (1 / power) + 1e-9)
    return guess if guess > low else low + 1
