"""What a network costs, as exact formulas of its widths.

MACs are multiply-adds: one MAC is one multiplication and one addition, so MACs are half of what counters of
floating-point operations (FLOPs) report. Biases, norms and activations count no MACs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ranp.arguments import Amount, NonNegative
from ranp.deprecation import RenamedAttribute

Sizes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        macs: Multiply-adds of one forward pass at the traced shape.
        params: Elements of all parameters.
        activation_bytes: Bytes that the operators of one forward pass in eval mode allocate for their outputs; views
            and in-place operators take none. (An upper bound in two cases: a reshape of a permuted tensor copies it
            only while the permutation moves dimensions wider than 1, and fused attention stores less than its parts.)
        neurons: Output channels of all layers.
        step_seconds: Predicted duration of a training step; None without a `ranp.costs.TimeTable`.
        train_bytes: Predicted peak memory of a training step; None unless its prediction was requested.
    """

    macs: Amount
    params: Amount
    activation_bytes: Amount
    neurons: Amount
    step_seconds: NonNegative | None = None
    train_bytes: Amount | None = None

    def known(self) -> dict[str, float]:
        """The amounts that are known, by name."""
        return {name: amount for name, amount in asdict(self).items() if amount is not None}


@dataclass(frozen=True, eq=False)
class Terms:
    """A sum of products: factor times the sizes of some axes, for every term.

    Attributes:
        factors: Of shape (terms,).
        axes: Rows of `CostTable.axes`, of shape (terms, axes per term); row 0 always has size 1.
    """

    factors: Sizes
    axes: Sizes

    def evaluate(self, sizes: Sizes) -> int:
        """The sum, given the size of every axis, of shape (axes,)."""
        return int((self.factors * sizes[self.axes].prod(axis=1)).sum())


@dataclass(frozen=True)
class OutputBytes:
    """Bytes that one operator allocates for one of its outputs: the factor times the sizes of some axes.

    Attributes:
        path: Module in whose forward the operator ran; empty for the model itself.
        operator: Its name.
        factor: Bytes.
        axes: Rows of `CostTable.axes`.
    """

    path: str
    operator: str
    factor: int
    axes: tuple[int, ...]


class CostModel(Protocol):
    """Predicts a resource that is measured or simulated rather than counted."""

    def evaluate(self, widths: Sizes) -> float:
        """The amount at given widths of the groups, of shape (groups,)."""


@dataclass(frozen=True, eq=False)
class CostTable:
    """Formulas of what a forward pass at the traced shape costs, as functions of the kept widths.

    Attributes:
        axes: Linear forms, of shape (axes, groups + 1): the size of an axis is its row times (widths, 1).
        macs: See `Cost`, as are the next two.
        params: See `Cost`.
        activation_bytes: See `Cost`.
        outputs: The summands of `activation_bytes`, operator by operator in the order in which they ran.
        models: Models of resources that are not formulas, by field of `Cost`.
    """

    axes: Sizes
    macs: Terms
    params: Terms
    activation_bytes: Terms
    outputs: tuple[OutputBytes, ...]
    models: Mapping[str, CostModel] = field(default_factory=dict)
    allocations = RenamedAttribute("outputs")

    def axes_at(self, widths: Sizes) -> Sizes:
        """Size of every axis at given widths of the groups."""
        return self.axes @ np.append(widths, 1)  # type: ignore[no-any-return]
