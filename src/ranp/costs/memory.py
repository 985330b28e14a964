"""The memory of a training step, as plain data: every block that it allocates, and its peak at any widths."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np

from ranp.costs.formulas import Sizes

Phase: TypeAlias = Literal["forward", "backward", "optimizer"]
Kind: TypeAlias = Literal[
    "parameters", "buffers", "optimizer_state", "batch", "gradients", "activations", "temporaries"
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Moment:
    """One operator of a training step.

    Attributes:
        phase: The part of the step.
        path: Module in whose forward it ran or, in the backward pass, whose forward it differentiates; empty for the
            model itself, the loss and the optimizer.
        operator: Its name.
        workspace_bytes: Estimate of what it allocates and frees again while it runs.
    """

    phase: Phase
    path: str
    operator: str
    workspace_bytes: int = 0


@dataclass(frozen=True)
class Block:
    """A block of memory that tensors of a training step share.

    Attributes:
        kind: What it holds: `activations` are made by the forward pass and needed by the backward pass; `temporaries`
            are all others that do not outlive the step.
        path: Module that allocated it, as in `Moment`; of a parameter, buffer or gradient, its name.
        bytes: Its size.
        start: Number of the moment that allocated it; 0 if it exists before the step.
        end: Number of the first moment that it does not see; the number of moments if it survives the step.
    """

    kind: Kind
    path: str
    bytes: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class MemoryPrediction:
    """The memory of a training step, operator by operator, from the second step on.

    Attributes:
        moments: All operators of the step, in order.
        blocks: All blocks of memory.
        notes: What had to be assumed; empty if nothing.
    """

    moments: tuple[Moment, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def timeline(self) -> dict[Kind, Sizes]:
        """Bytes of each kind while each operator runs, its outputs included: arrays of shape (moments,)."""
        changes = {kind: np.zeros(len(self.moments) + 1, dtype=np.int64) for kind in KINDS}
        for block in self.blocks:
            changes[block.kind][block.start] += block.bytes
            changes[block.kind][block.end] -= block.bytes
        return {kind: change.cumsum()[:-1] for kind, change in changes.items()}

    @cached_property
    def live_bytes(self) -> Sizes:
        """Bytes of all tensors while each operator runs, of shape (moments,)."""
        total: Sizes = np.sum(list(self.timeline.values()), axis=0, dtype=np.int64)
        return total

    @cached_property
    def peak_moment(self) -> int:
        """Number of the operator at which tensors take most memory."""
        return int(self.live_bytes.argmax())

    @property
    def peak(self) -> Moment:
        """The operator at which tensors take most memory."""
        return self.moments[self.peak_moment]

    @property
    def peak_bytes(self) -> int:
        """The most bytes that tensors take at the same time."""
        return int(self.live_bytes[self.peak_moment])

    @property
    def process_bytes(self) -> int:
        """The same, with an estimate of what operators allocate while they run (on the CPU; elsewhere unknown)."""
        return int((self.live_bytes + [moment.workspace_bytes for moment in self.moments]).max())

    @property
    def composition(self) -> dict[Kind, int]:
        """Bytes of each kind at the peak."""
        return {kind: int(amounts[self.peak_moment]) for kind, amounts in self.timeline.items()}

    def by_path(self) -> Mapping[str, int]:
        """Bytes at the peak by the module that allocated them, the largest first; without what exists at all times."""
        found: dict[str, int] = {}
        for block in self.blocks:
            if block.kind in ("activations", "temporaries") and block.start <= self.peak_moment < block.end:
                found[block.path] = found.get(block.path, 0) + block.bytes
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True, eq=False)
class MemoryFormula:
    """The peak memory of a training step as a function of the kept widths, at one batch size and input size.

    The bytes of a block are a factor times the sizes of one or two axes. The peak is the largest of the sums over the
    blocks that are alive at the same moment.

    Attributes:
        axes: Linear forms, of shape (axes, groups + 1): the size of an axis is its row times (widths, 1).
        products: Rows of `axes`, of shape (terms, 2).
        moments: Bytes of each term per unit of its product, of shape (moments, terms); only of those moments at which
            the peak may be.
    """

    axes: Sizes
    products: Sizes
    moments: Sizes

    def evaluate(self, widths: Sizes) -> int:
        """Bytes at the peak, given the width of every group, of shape (groups,)."""
        sizes = self.axes @ np.append(widths, 1)
        return int((self.moments @ sizes[self.products].prod(axis=1)).max())
