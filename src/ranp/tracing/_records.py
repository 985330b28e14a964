"""What the tracer writes down: plain data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ranp.graph import Node
from ranp.module_utils import tensors_in
from ranp.tracing._labels import Labels


@dataclass(frozen=True)
class Source:
    """A dimension of a parameter or buffer; its labels are `first`, `first + 1`, ..."""

    tensor: str
    dim: int
    size: int
    first: int

    @property
    def labels(self) -> Labels:
        """Its labels, of shape (size,)."""
        return np.arange(self.first, self.first + self.size)


@dataclass(frozen=True)
class Note:
    """Why labels were frozen."""

    path: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Axis:
    """A dimension whose size may shrink: its labels, or only its size where it carries none."""

    labels: Labels | None
    size: int


def total(products: Iterable[tuple[int, Sequence[Axis]]]) -> int:
    """The sum of some products of axes at full width."""
    return sum(factor * math.prod(axis.size for axis in axes) for factor, axes in products)


@dataclass(frozen=True)
class Allocated:
    """What one operator allocated for one of its outputs: bytes times the sizes of some axes."""

    path: str
    operator: str
    bytes: int
    axes: list[Axis]


@dataclass(frozen=True)
class LayerCall:
    """One run of a convolution or linear layer."""

    weight: str
    bias: str | None
    out: Labels | None
    out_dim: int
    blocks: int
    width: int
    macs: int
    output_elements: int


@dataclass(frozen=True)
class Output:
    """What one operator returned, as shapes and labels, and its multiply-adds at full width."""

    path: str
    operator: str
    shapes: list[tuple[tuple[int, ...], tuple[Labels, ...]]]
    macs: int


@dataclass(frozen=True)
class Pass:
    """What one forward pass did.

    Attributes:
        layers: Runs of layers.
        macs: Multiply-adds of every operator, each a factor times the sizes of some axes.
        activations: What operators allocated.
        outputs: What every operator returned.
        nodes: How results of layers reach other layers.
    """

    layers: list[LayerCall] = field(default_factory=list)
    macs: list[tuple[int, list[Axis]]] = field(default_factory=list)
    activations: list[Allocated] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Forward:
    """One run of a module's forward.

    Attributes:
        path: The module's path; empty for the model itself.
        module: The module.
        inputs: What it was given, apart from inputs given by name.
    """

    path: str
    module: nn.Module
    inputs: tuple[Any, ...]

    @property
    def bare(self) -> bool:
        """Whether the module is nothing but its forward: it holds no parameters, buffers or modules."""
        return not (self.module._parameters or self.module._buffers or self.module._modules)


@dataclass(frozen=True)
class Call:
    """One operator, as it ran.

    Attributes:
        function: The operator.
        args: Positional arguments.
        kwargs: Keyword arguments.
        out: What it returned.
        forward: Where it ran.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    forward: Forward

    @property
    def path(self) -> str:
        """Path of the module in whose forward it ran."""
        return self.forward.path

    @cached_property
    def name(self) -> str:
        """The operator's name, without overload."""
        return str(self.function.overloadpacket.__name__)

    @cached_property
    def tensors(self) -> list[Tensor]:
        """All tensor arguments, those within lists too."""
        return tensors_in((self.args, self.kwargs))

    @cached_property
    def outputs(self) -> list[Tensor]:
        """All tensors that it returned."""
        return tensors_in(self.out)

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by keyword."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)


@dataclass(frozen=True)
class Recording:
    """One forward pass: the tensors that went in, all operators in order, and the tensors that came out."""

    inputs: list[Tensor]
    calls: list[Call]
    outputs: list[Tensor]

    def does_as(self, other: "Recording") -> bool:
        """Whether another pass does the same to channels.

        That is when it runs the same operators on the same tensors, apart from modules that hand on their input, value
        by value or scaled by a number for each sample: activations, stochastic depth.
        """
        return self._wiring() == other._wiring()

    def _wiring(self) -> list[Any]:
        """What ran where on what: equal for two passes that do the same.

        Tensors are numbered in the order in which they are met, when their shapes are told too.
        """
        following, numbers = count(), dict[int, int]()
        steps: list[Any] = []

        def number(tensor: Tensor) -> int:
            if id(tensor) not in numbers:
                numbers[id(tensor)] = next(following)
                steps.append(tensor.shape)
            return numbers[id(tensor)]

        steps.append([*map(number, self.inputs)])
        for _, run in groupby(self.calls, key=lambda call: id(call.forward)):
            calls = list(run)
            source = _handed_on(calls)
            for call in calls:
                if source is None:
                    steps += [call.path, call.name, [*map(number, call.tensors)], [*map(number, call.outputs)]]
                else:
                    numbers |= dict.fromkeys(map(id, call.outputs), number(source))
        steps.append([*map(number, self.outputs)])
        return steps


def _handed_on(run: list[Call]) -> Tensor | None:
    """The tensor that a module hands on value by value, or None where it does more than that."""
    if not run[0].forward.bare:
        return None
    source, found = None, set[int]()
    for call in run:
        wide = [] if call.name.startswith("new_") else [tensor for tensor in call.tensors if _is_wide(tensor)]
        if not wide and not any(map(_is_wide, call.outputs)):
            continue  # numbers for each sample, from nothing but such numbers
        if not wide or torch.Tag.pointwise not in call.function.tags:
            return None
        source = wide[0] if source is None else source
        if any(tensor is not source and id(tensor) not in found for tensor in wide):
            return None
        if any(tensor.numel() > 1 and tensor.ndim != source.ndim for tensor in call.tensors):
            return None  # broadcast along another dimension than that of the samples
        if any(output.shape != source.shape for output in call.outputs):
            return None
        found |= {id(output) for output in call.outputs}
    return source


def _is_wide(tensor: Tensor) -> bool:
    return any(size > 1 for size in tensor.shape[1:])
