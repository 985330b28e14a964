"""What a network costs, as exact formulas of its widths, and the resources that a budget can limit.

MACs are multiply-adds: one MAC is one multiplication and one addition, so MACs are half of what counters of
floating-point operations (FLOPs) report. Biases, norms and activations count no MACs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
    """

    macs: int
    params: int
    activation_bytes: int
    neurons: int


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


@dataclass(frozen=True, eq=False)
class CostTable:
    """Formulas of what a forward pass at the traced shape costs, as functions of the kept widths.

    Attributes:
        axes: Linear forms, of shape (axes, groups + 1): the size of an axis is its row times (widths, 1).
        macs: See `Cost`, as are the next two.
        params: See `Cost`.
        activation_bytes: See `Cost`.
        outputs: The summands of `activation_bytes`, operator by operator in the order in which they ran.
    """

    axes: Sizes
    macs: Terms
    params: Terms
    activation_bytes: Terms
    outputs: tuple[OutputBytes, ...]
    allocations = RenamedAttribute("outputs")

    def axes_at(self, widths: Sizes) -> Sizes:
        """Size of every axis at given widths of the groups."""
        return self.axes @ np.append(widths, 1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Resource:
    """A resource that a budget can limit.

    Args:
        name: Name of the resource; for those of ranp, the field of `Cost`.
        cost: From a `ChannelGraph` and the kept width of every group, of shape (groups,), to what the network costs
            then. It must not decrease when a width grows.
        label: Name in tables; by default `name`.
        unit: Unit in tables.
        scale: How much one unit is.
        limit: Name of its limit in `ranp.Budget`; by default `name`.
        removes: Whether the limit is a fraction to remove, not one to keep.

    Example:
        A resource of your own, proportional to the number of channels that are kept. It is passed as an argument:
        `ranp.allocate(graph, scores, ranp.Budget(custom={"energy": 0.3}), resources=[energy])`.

        >>> energy = Resource("energy", lambda graph, widths: 2.5 * float(widths.sum()), unit="J")
        >>> energy.cost(None, np.array([4, 8])), energy.text(30.0)
        (30.0, '30.000 J')
    """

    name: str
    cost: Callable[[Any, Sizes], float]
    label: str = ""
    unit: str = ""
    scale: float = 1
    limit: str = ""
    removes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "limit", self.limit or self.name)

    def of(self, cost: Cost) -> int:
        """The amount of one of ranp's own resources in a cost."""
        return int(getattr(cost, self.name))

    def text(self, amount: float) -> str:
        """An amount with its unit."""
        return f"{amount / self.scale:,.{3 if self.unit else 0}f} {self.unit}".strip()

    def fraction(self, amount: float, full: float) -> float:
        """The fraction that the limit bounds: what is kept of the full network's amount, or what is removed of it."""
        kept = amount / full if full else 1.0
        return 1 - kept if self.removes else kept

    def most(self, fraction: float, full: float) -> float:
        """The largest amount that a limit permits.

        Example:
            >>> [resource.most(0.25, 100) for resource in RESOURCES]
            [25.0, 25.0, 25.0, 75.0]
        """
        return full * (1 - fraction if self.removes else fraction)


def _cost(name: str) -> Callable[[Any, Sizes], int]:
    return lambda graph, widths: getattr(graph.cost(widths), name)  # type: ignore[no-any-return]


RESOURCES = (
    Resource("macs", _cost("macs"), "multiply-adds", "G", 1e9),
    Resource("params", _cost("params"), "parameters", "M", 1e6),
    Resource("activation_bytes", _cost("activation_bytes"), "activations", "MiB", 2**20, limit="activations"),
    Resource("neurons", _cost("neurons"), "neurons", limit="sparsity", removes=True),
)
"""The resources of every network: the fields of `Cost`, in the order of tables and budgets."""
