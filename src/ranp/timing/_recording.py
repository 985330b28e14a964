"""Recording the operators of a training step: what each had to do, and how long it took."""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ranp.module_utils import DispatchMode, tensors_in
from ranp.timing._clock import Clock

# Operators whose schema does not say that they return views.
_HIDDEN_VIEWS = {"_unsafe_view", "unsafe_split", "unsafe_split_with_sizes"}
_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""Matrix products, with the position of their first factor among the arguments."""


@dataclass(frozen=True)
class Recorded:
    """One operator as it ran.

    Attributes:
        name: With namespace and overload.
        tensors: Types of its tensors.
        layouts: Order of their dimensions in memory.
        constants: Integers among its arguments.
        volumes: See `ranp.costs.time.Loads`, as for the following; the volume is the sum of these numbers.
        inputs: Input channels.
        outputs: Output channels.
        convolution: Arguments of a convolution, with shapes instead of tensors.
    """

    name: str
    tensors: tuple[str, ...]
    layouts: tuple[str, ...]
    constants: tuple[int, ...]
    volumes: tuple[int, ...]
    inputs: int = 1
    outputs: int = 1
    convolution: "ConvolutionArguments | None" = field(default=None, compare=False)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of its size."""
        return *self.volumes, self.inputs, self.outputs

    @property
    def key(self) -> Hashable:
        """What an operator has in common with itself at other widths."""
        return self.name, self.tensors


@dataclass(frozen=True)
class ConvolutionArguments:
    """Arguments of a convolution; see `torch.ops.aten.convolution`."""

    source: tuple[int, ...]
    weight: tuple[int, ...]
    dtype: Any
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int

    def load(self, out: tuple[int, ...]) -> tuple[int, int, int]:
        """Positions, and input and output channels of each group."""
        at = self.source if self.transposed else out
        positions = at[0] * math.prod(at[2:]) * self.groups
        first, second = self.weight[:2]  # The first counts the channels of all groups.
        within = first // self.groups
        return (positions, within, second) if self.transposed else (positions, second, within)


class StepRecorder(DispatchMode):
    """Records all operators of a step that do something to values, not those that return views of their inputs.

    Args:
        clock: The clock of the device on which the step runs.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.operators: list[Recorded] = []
        self._clock = clock
        self._marks: list[tuple[Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin = self._clock.mark()
        out = func(*args, **(kwargs or {}))
        end = self._clock.mark()
        if tensors_in(out) and not _is_view(func):
            self.operators.append(_recorded(func, args, kwargs or {}, out))
            self._marks.append((begin, end))
        return out

    def seconds(self) -> list[float]:
        """How long each operator took."""
        self._clock.wait()
        return [self._clock.seconds(*marks) for marks in self._marks]


def _is_view(func: Any) -> bool:
    aliases = (entry.alias_info for entry in func._schema.returns)
    return all(alias is not None and not alias.is_write for alias in aliases) or _short_name(func) in _HIDDEN_VIEWS


def _short_name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _recorded(func: Any, args: Any, kwargs: Any, out: Any) -> Recorded:
    tensors = tensors_in((args, kwargs, out))
    types = tuple(f"{str(tensor.dtype).removeprefix('torch.')}[{tensor.ndim}]" for tensor in tensors)
    same = str(func), types, tuple(map(_layout, tensors)), tuple(_integers((args, kwargs)))
    name = _short_name(func)
    if name in ("convolution", "convolution_backward"):
        arguments = _convolution(args[1:] if name == "convolution_backward" else args)
        positions, inputs, outputs = arguments.load(tuple((args[0] if name == "convolution_backward" else out).shape))
        return Recorded(*same, (positions,), inputs, outputs, arguments)
    if name in _PRODUCTS:
        left, right = args[_PRODUCTS[name] :][:2]
        return Recorded(*same, (math.prod(left.shape[:-1]),), *right.shape[-2:])
    return Recorded(*same, tuple(tensor.numel() for tensor in tensors))


def _convolution(args: Any) -> ConvolutionArguments:
    source, weight, _, *rest = args
    return ConvolutionArguments(tuple(source.shape), tuple(weight.shape), source.dtype, *rest[:6])


def _integers(value: Any) -> Iterator[int]:
    """All integers in nested arguments."""
    if type(value) is int:
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, dict):
        yield from _integers(list(value.values()))


def _layout(tensor: Tensor) -> str:
    """Dimensions from the slowest to the fastest where that is not their order, with a mark where there are gaps."""
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda dim: -strides[dim])
    dense = math.prod(tensor.shape) == 1 + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True)
    )
    return ("" if order == sorted(order) else "".join(map(str, order))) + ("" if dense else "~")
