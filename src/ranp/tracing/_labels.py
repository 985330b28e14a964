"""Arrays of channel labels, and how they follow a tensor through views.

A labelling of a tensor is an integer array of the tensor's rank: full size along the dimensions that carry channels,
size 1 along all others. The functions here act on a labelling as the operator acts on the tensor.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Labels: TypeAlias = npt.NDArray[np.int64]
Shape: TypeAlias = Sequence[int]

# A labelling larger than this is coarsened (its channels coupled) instead of grown: memory while tracing stays bounded.
LIMIT = 1 << 20


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


def support(labels: Labels) -> frozenset[int]:
    """Dimensions along which the labels vary.

    Example:
        >>> sorted(support(np.arange(6).reshape(1, 6, 1)))
        [1]
    """
    return frozenset(dim for dim, size in enumerate(labels.shape) if size > 1)


def pad_rank(labels: Labels, rank: int) -> Labels:
    """Prepend dimensions of size 1, as broadcasting does."""
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def labels_along(vector: Labels, dim: int, rank: int) -> Labels:
    """A vector of labels as a labelling of that rank, which varies along one dimension.

    Example:
        >>> labels_along(np.arange(3), 1, 4).shape
        (1, 3, 1, 1)
    """
    return vector.reshape([-1 if d == dim % rank else 1 for d in range(rank)])


def first_along(labels: Labels, dim: int) -> Labels:
    """The labels along one dimension, at the first index of all others."""
    return labels[tuple(slice(None) if d == dim else 0 for d in range(labels.ndim))]


def along(labels: Labels, dim: int) -> bool:
    """Whether the labels vary along a dimension."""
    return bool(labels.shape[dim] > 1)


def blocks(old: Shape, new: Shape) -> Iterator[tuple[slice, slice]]:
    """Smallest runs of dimensions of two shapes that hold the same elements.

    Example:
        >>> [(old.start, old.stop, new.start, new.stop) for old, new in blocks((2, 3, 4), (6, 4))]
        [(0, 2, 0, 1), (2, 3, 1, 2)]
    """
    i = j = 0
    while i < len(old) or j < len(new):
        i0, j0 = i, j
        held = wanted = 1
        if i < len(old):
            held, i = old[i], i + 1
        if j < len(new):
            wanted, j = new[j], j + 1
        while held != wanted:
            if held < wanted:
                held, i = held * old[i], i + 1
            else:
                wanted, j = wanted * new[j], j + 1
        yield slice(i0, i), slice(j0, j)


def oversized(labels: Labels, old: Shape, new: Shape) -> list[int]:
    """Dimensions to couple before a reshape, so that the labels do not outgrow `LIMIT`."""
    size, dims = labels.size, []
    for held, _ in blocks(old, new):
        block = [dim for dim in range(held.start, held.stop) if along(labels, dim)]
        if not block or held.stop - held.start == 1:
            continue
        grown = size // math.prod(labels.shape[held]) * math.prod(old[held])
        if grown > LIMIT:
            dims += block
        else:
            size = grown
    return dims


def reshape(labels: Labels, old: Shape, new: Shape) -> Labels:
    """Labels of a tensor of shape `old` once it is viewed as `new`.

    Only runs of dimensions that are split or merged are expanded, so spatial dimensions cost nothing.

    Example:
        >>> reshape(np.array([[[5], [6]]]), (1, 2, 2), (1, 4))
        array([[5, 5, 6, 6]])
    """
    done = 0
    for held, wanted in blocks(old, new):
        count, target = held.stop - held.start, list(new[wanted])
        block = slice(done, done + count)
        head, tail = labels.shape[:done], labels.shape[done + count :]
        if max(labels.shape[block], default=1) == 1:
            labels = labels.reshape(head + (1,) * len(target) + tail)
        elif list(old[held]) != target:
            full = np.broadcast_to(labels, head + tuple(old[held]) + tail)
            labels = squash(full.reshape(head + tuple(target) + tail), range(done, done + len(target)))
        done += len(target)
    return labels


def squash(labels: Labels, dims: Sequence[int]) -> Labels:
    """Reduce the dimensions along which labels are in fact constant to size 1."""
    for dim in dims:
        first = labels.take([0], axis=dim)
        if along(labels, dim) and np.array_equal(np.broadcast_to(first, labels.shape), labels):
            labels = first
    return labels


def components(parent: Labels, left: Labels, right: Labels) -> Labels:
    """Connected components: for each label the smallest label that it is tied to.

    Args:
        parent: The components so far, of shape (labels,); `np.arange(labels)` where nothing is tied.
        left: One end of every further tie, of shape (ties,).
        right: The other end.

    Example:
        >>> components(np.arange(4), np.array([3]), np.array([1]))
        array([0, 1, 2, 1])
    """
    parent = parent.copy()
    while True:
        a, b = parent[left], parent[right]
        if np.array_equal(a, b):
            return parent
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
