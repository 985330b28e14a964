"""Sizes as functions of the widths: products of a factor and some axes, which are linear forms of the widths."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

from ranp.costs.formulas import Sizes


@dataclass(frozen=True)
class Size:
    """A factor times the sizes of some axes, by number."""

    factor: int
    axes: tuple[int, ...] = ()


def distinct_axes(axes: Sizes) -> Sizes:
    """The axes of which all are multiples, each once; the first is the constant 1.

    Args:
        axes: Linear forms, of shape (axes, groups + 1); see `ranp.costs.CostTable.axes`.

    Example:
        >>> distinct_axes(np.array([[0, 0, 1], [4, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 3]]))
        array([[0, 0, 1],
               [0, 1, 0],
               [1, 0, 0]])
    """
    rows = axes // np.maximum(np.gcd.reduce(axes, axis=1, keepdims=True), 1)
    constant = np.zeros((1, rows.shape[1]), dtype=np.int64)
    constant[0, -1] = 1
    return np.vstack([constant, np.unique(rows[rows[:, :-1].any(axis=1)], axis=0)])


def sizes_at(axes: Sizes, widths: npt.ArrayLike) -> Sizes:
    """The size of every axis at given widths of the groups."""
    return axes @ np.append(widths, 1)  # type: ignore[no-any-return]


def total(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """Terms of the sum of some sizes.

    Example:
        >>> total([Size(2, (1,)), Size(3, (1,)), Size(4)])
        (Size(factor=5, axes=(1,)), Size(factor=4, axes=()))
    """
    found: dict[tuple[int, ...], int] = {}
    for size in sizes:
        found[size.axes] = found.get(size.axes, 0) + size.factor
    return tuple(Size(factor, axes) for axes, factor in found.items())


class SizeArray:
    """Many sizes, evaluated at once."""

    def __init__(self, sizes: Sequence[Size]) -> None:
        longest = max((len(size.axes) for size in sizes), default=0) or 1
        self._factors = np.array([size.factor for size in sizes], dtype=np.int64)
        # Row 0 of the axes has size 1.
        self._axes = np.array([size.axes + (0,) * (longest - len(size.axes)) for size in sizes], dtype=np.int64)

    def at(self, sizes: Sizes) -> Sizes:
        """The values, given the size of every axis: of shape (sizes,)."""
        return self._factors * sizes[self._axes.reshape(len(self._factors), -1)].prod(axis=1)  # type: ignore[no-any-return]


class SizeFinder:
    """Finds what an observed number is a product of, from its values at several widths.

    Args:
        sizes: Size of every axis at each of the widths, of shape (widths, axes).

    Example:
        >>> finder = SizeFinder(np.array([[1, 4, 6], [1, 3, 5], [1, 2, 5]]))
        >>> finder.find([8, 6, 4]), finder.find([72, 45, 30]), finder.find([7, 7, 7]), finder.find([5, 6, 7])
        (Size(factor=2, axes=(1,)), Size(factor=3, axes=(1, 2)), Size(factor=7, axes=()), None)
    """

    def __init__(self, sizes: Sizes) -> None:
        _, first = np.unique(sizes, axis=1, return_index=True)
        varying = [index for index in sorted(first.tolist()) if np.ptp(sizes[:, index])]
        self._candidates: dict[tuple[int, ...], tuple[tuple[int, ...], int]] = {}
        for axes in (*((index,) for index in varying), *combinations_with_replacement(varying, 2)):
            ratio, common = _reduced(sizes[:, list(axes)].prod(axis=1))
            self._candidates.setdefault(ratio, (axes, common))

    def find(self, values: Sequence[int]) -> Size | None:
        """The number as a factor times at most two axes, or None where it is not that."""
        if len(set(values)) == 1:
            return Size(int(values[0]))
        ratio, common = _reduced(np.array(values))
        axes, divisor = self._candidates.get(ratio, ((), 0))
        return Size(common // divisor, axes) if divisor and common % divisor == 0 else None


def _reduced(values: Sizes) -> tuple[tuple[int, ...], int]:
    """Numbers divided by their greatest common divisor, and that."""
    common = max(int(np.gcd.reduce(values)), 1)
    return tuple((values // common).tolist()), common
