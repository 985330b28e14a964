"""What the tracer writes down: plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranp._calling import tensors_in
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
    """What one operator returned: shapes and labels."""

    path: str
    operator: str
    shapes: list[tuple[tuple[int, ...], tuple[Labels, ...]]]


@dataclass(frozen=True)
class Pass:
    """What one forward pass did.

    Attributes:
        layers: Runs of layers.
        macs: Multiply-adds of every operator, each a factor times the sizes of some axes.
        activations: Bytes that operators allocated, likewise.
        outputs: What every operator returned.
    """

    layers: list[LayerCall] = field(default_factory=list)
    macs: list[tuple[int, list[Axis]]] = field(default_factory=list)
    activations: list[tuple[int, list[Axis]]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)

    def same_path(self, other: "Pass") -> bool:
        """Whether another pass ran the same operators in the same modules."""
        ours, theirs = ([(entry.path, entry.operator) for entry in found.outputs] for found in (self, other))
        return ours == theirs


@dataclass(frozen=True)
class Call:
    """One operator, as it was dispatched."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    tags: Sequence[torch.Tag]

    @cached_property
    def tensors(self) -> list[Tensor]:
        """All tensor arguments, those within lists too."""
        return list(tensors_in((self.args, self.kwargs)))

    @cached_property
    def outputs(self) -> list[Tensor]:
        """All tensors that it returned."""
        return list(tensors_in(self.out))

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by keyword."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)
