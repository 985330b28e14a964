"""What a forward asks for at other widths, and how labels are adjusted to that.

Labels say how large a view is where there are fewer channels. A forward may ask for another size: it may split channels
into blocks of a fixed size, compute the size from another one, or take it from an attribute. Or it multiplies by a
number that depends on a width. Labels are adjusted accordingly, and the next trial shows whether that was right.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ranp.graph import Ints
from ranp.tracing._adjustments import Adjustments, Factor, Place, Size
from ranp.tracing._build import Build
from ranp.tracing._capture import Call, ModelCapture
from ranp.tracing._propagate import Rule, Tracer
from ranp.tracing._rescale import Producers

VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
# What torch says of reshapes that fail.
RESHAPE_FAILS = re.compile(r"is invalid for input of size|unflatten")


class Reshapes(TorchFunctionMode):
    """Gives reshapes that fail another shape: torch refuses them before any operator runs.

    `substitute` returns it, given the shape that was asked for, or None.
    """

    def __init__(self, substitute: Callable[[Sequence[int]], Sequence[int] | None]) -> None:
        super().__init__()
        self.substitute = substitute

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError:
            asked = _asked_shape(func, args, kwargs or {})
            shape = self.substitute(asked) if asked else None
            if shape is None:
                raise
            return args[0].reshape(shape)


def _asked_shape(func: Any, args: Any, kwargs: Any) -> Sequence[int]:
    """The shape that a reshape asks for; empty for other functions."""
    if func in (Tensor.reshape, torch.reshape):
        sizes = args[1:] or [kwargs["shape"]]
        return sizes[0] if isinstance(sizes[0], (tuple, list)) else sizes  # type: ignore[no-any-return]
    if func in (Tensor.unflatten, torch.unflatten) and len(args) == 3:
        shape, dim = [*args[0].shape], args[1] % args[0].ndim
        return [*shape[:dim], *args[2], *shape[dim + 1 :]]
    return ()


class Requests:
    """Adjusts labels to what a forward asks for."""

    def __init__(self, capture: ModelCapture, find_rule: Callable[[Call], Rule]) -> None:
        self.capture, self.find_rule = capture, find_rule
        self.adjustments = Adjustments()
        self._tried = Counter[Size | Place]()

    def view(self, trial: "WidthTrial", place: Place, asked: Sequence[int]) -> bool:
        """Adjust labels to a view that asks for another shape; False where nothing is left to try."""
        sizes = [Size(place, 0, dim) for dim in range(len(asked))]
        full = [trial.full(size) for size in sizes]
        dims, _ = trial.built.splits.get(place, ((), False))
        free = [dim for dim in dims if asked[dim] not in (full[dim], trial.size(sizes[dim]))]
        if len(free) == 1 and self.adjustments.turn(place, dims, free[0]):
            return True
        others = [size for size in sizes if asked[size.dim] not in (-1, trial.size(size))]
        return sum(self._size(trial, size, asked[size.dim]) for size in others) > 0

    def _size(self, trial: "WidthTrial", size: Size, asked: int) -> bool:
        """Try the next size that a size of a view may be taken from."""
        undone = self.adjustments.undo(size)
        number, self._tried[size] = self._tried[size], self._tried[size] + 1
        others = [*trial.sources(size, asked)] if asked != trial.full(size) else []
        if number < len(others):
            self.adjustments.equal[size] = others[number]
        return undone or number < len(others)

    def number(self, tracer: Tracer, trial: "WidthTrial", place: Place, change: float) -> bool:
        """Have weights rescaled where a number in a product changes with a width; False where that is not possible."""
        undone = self.adjustments.factors.pop(place, None) is not None
        tried, self._tried[place] = self._tried[place], self._tried[place] + 1
        run, number = place
        producers = Producers(tracer, self.capture.passes[run], self.find_rule)
        if producers.of(number):
            near = (Size((run, made), output, dim) for made, output, dim in producers.sizes(number))
            sizes = [*trial.shrinking(near), *trial.shrinking(trial.before(place))]
            found = [Factor(size, exponent) for size in sizes if (exponent := trial.exponent(size, change))]
            if tried < len(found):
                self.adjustments.factors[place] = found[tried]
                return True
        return undone


class WidthTrial:
    """A run at other widths: what sizes of outputs should be, and what they are at full width."""

    def __init__(self, built: Build, widths: Ints) -> None:
        self.built = built
        axes_at = built.graph.costs.axes_at
        self._sizes: list[int] = axes_at(widths).tolist()
        self._full: list[int] = axes_at(built.graph.widths).tolist()

    def _shape(self, size: Size) -> tuple[int, int]:
        run, number = size.place
        return self.built.predictions[run][number].shapes[size.output][size.dim]

    def size(self, size: Size) -> int:
        """A size at the widths of the trial."""
        factor, axis = self._shape(size)
        return factor * self._sizes[axis]

    def full(self, size: Size) -> int:
        """A size at full width."""
        factor, axis = self._shape(size)
        return factor * self._full[axis]

    def before(self, place: Place) -> Iterator[Size]:
        """Sizes of the outputs of operators before one, the latest first."""
        run, number = place
        for earlier in reversed(range(number)):
            for output, shape in enumerate(self.built.predictions[run][earlier].shapes):
                yield from (Size((run, earlier), output, dim) for dim in reversed(range(len(shape))))

    def shrinking(self, sizes: Iterable[Size]) -> Iterator[Size]:
        """Those of some sizes that are smaller than at full width, one for each axis."""
        seen = set[int]()
        for size in sizes:
            axis = self._shape(size)[1]
            if axis not in seen and self.size(size) < self.full(size):
                seen.add(axis)
                yield size

    def sources(self, size: Size, asked: int) -> Iterator[Size]:
        """Sizes from which a forward may compute another one: the same, a multiple or a fraction."""
        full = self.full(size)
        for other in self.shrinking(self.before(size.place)):
            whole, left = self.full(other), self.size(other)
            if self._shape(other) == self._shape(size):
                continue
            if (whole % full == 0 and left // (whole // full) == asked) or (
                full % whole == 0 and left * (full // whole) == asked
            ):
                yield other

    def exponent(self, size: Size, change: float) -> float | None:
        """The power of a size's ratio that a number changes by, a multiple of a quarter; None where it is not one."""
        power = math.log(change) / math.log(self.size(size) / self.full(size))
        return round(4 * power) / 4 if abs(4 * power - round(4 * power)) < 1e-6 and 0 < abs(power) <= 2 else None
