"""The widths that a plan may give to a group: those that devices like, and none so narrow that it starves a layer."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranp.arguments import Count, require
from ranp.graph import ChannelGraph, Floats, Ints

# Devices compute blocks of 8 channels; a narrower group still gains from a power of two.
BLOCK = 8
NARROW = (1, 2, 4)
# By default no group keeps fewer channels than this, nor a smaller part than half of what groups keep on average.
LEAST_CHANNELS = 2
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class WidthGrid:
    """The widths that every group may have.

    By default these are multiples of 8, the full width, and 2 and 4 below 8; and no group is narrower than half of what
    all groups keep on average, relative to their full widths. Either argument replaces its part of this default:
    `min_width` the guard, `round_to` the multiples.

    Args:
        graph: The traced model.
        min_width: Channels that every group keeps at least (all, where it has fewer).
        round_to: Widths are multiples of this, or the full width.

    Raises:
        InputError: An argument that is not an integer of at least 1.

    Example:
        >>> import ranp
        >>> from torch import nn, zeros
        >>> graph = ranp.trace(nn.Sequential(nn.Linear(3, 20), nn.Linear(20, 2)), zeros(1, 3))
        >>> [WidthGrid(graph, *how).allowed[0].tolist() for how in ((None, None), (None, 16), (5, 4))]
        [[2, 4, 8, 16, 20], [16, 20], [8, 12, 16, 20]]
    """

    graph: ChannelGraph
    min_width: int | None = None
    round_to: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_width", "round_to"):
            require(name, getattr(self, name), Count | None)

    @cached_property
    def allowed(self) -> tuple[Ints, ...]:
        """The widths of every group, ascending; the last one is the full width."""
        return tuple(self._allowed(int(width)) for width in self.graph.widths)

    def _allowed(self, full: int) -> Ints:
        step = self.round_to or BLOCK
        least = min(full, LEAST_CHANNELS if self.min_width is None else self.min_width)
        found = {*range(step, full, step), full, *(NARROW if self.round_to is None else ())}
        return np.array(sorted(width for width in found if least <= width <= full), dtype=np.int64)

    @cached_property
    def narrowest(self) -> Ints:
        """The smallest width of every group, of shape (groups,)."""
        return np.array([widths[0] for widths in self.allowed], dtype=np.int64)

    def nearest(self, wanted: Floats | Ints) -> Ints:
        """The allowed widths that are nearest to the wanted ones, of shape (groups,); wider ones if two are.

        Example:
            >>> import ranp
            >>> from torch import nn, zeros
            >>> graph = ranp.trace(nn.Sequential(nn.Linear(3, 20), nn.Linear(20, 2)), zeros(1, 3))
            >>> [int(WidthGrid(graph).nearest([width])[0]) for width in (0, 3, 5.9, 13, 19)]
            [2, 4, 4, 16, 20]
        """
        pairs = zip(self.allowed, wanted, strict=True)
        return np.array([widths[-1 - np.argmin(np.abs(widths[::-1] - width))] for widths, width in pairs], np.int64)

    def guarded(self, wanted: Ints) -> Floats:
        """The wanted widths, of shape (groups,), raised to half of the share that groups keep on average.

        A given `min_width` replaces this guard.
        """
        if self.min_width is not None or not len(wanted):
            return wanted.astype(np.float64)
        shares = wanted / self.graph.widths
        widths: Floats = np.maximum(shares, LEAST_SHARE * shares.mean()) * self.graph.widths
        return widths
