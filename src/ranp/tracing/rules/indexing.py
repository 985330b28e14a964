"""Rules for operators that read or write at places given by numbers: channels that lie along other dimensions pass."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ranp.tracing._capture import Call
from ranp.tracing._labels import Labels
from ranp.tracing._propagate import Tracer
from ranp.tracing.rules.along import mark_along

BY_NUMBER = "is selected or written by number"


def index(tracer: Tracer, call: Call) -> None:
    """Entries at given places along some dimensions (`x[:, places]`)."""
    source, places = call.args[:2]
    picked = _Picked(source, places)
    _mark_places(tracer, places)
    kept = mark_along(tracer, tracer.labels(source), picked.dims, BY_NUMBER)
    tracer.set(call.outputs[0], [picked.moved(labels) for labels in kept])


def index_put(tracer: Tracer, call: Call) -> None:
    """Values written to given places along some dimensions (`x[:, places] = values`)."""
    target, places, values = call.args[:3]
    if any(tensor is not None and tensor.dtype == torch.bool for tensor in places):
        _written(tracer, call, _masked(tracer, call))
        return
    picked = _Picked(target, places)
    _mark_places(tracer, places)
    kept = mark_along(tracer, tracer.labels(target), picked.dims, BY_NUMBER)
    given = mark_along(tracer, tracer.labels(values), picked.new_dims(values), BY_NUMBER)
    both = [[picked.moved(labels) for labels in kept], given]
    merged = tracer.merge([target, values], [picked.shape, values.shape], len(picked.shape), both)
    _written(tracer, call, [picked.moved_back(labels) for labels in merged])


def _masked(tracer: Tracer, call: Call) -> list[Labels]:
    """The labels of a tensor into which values are written where a mask is true, as an elementwise operator would."""
    target, places, values = call.args[:3]
    start = next(dim for dim, tensor in enumerate(places) if tensor is not None)
    mask, *others = (tensor for tensor in places if tensor is not None)
    if others or values.numel() > 1:
        for tensor in (target, values, *others):
            for labels in tracer.labels(tensor):
                tracer.mark_unprunable(labels, BY_NUMBER)

    before, after = (1,) * start, (1,) * (target.ndim - start - mask.ndim)
    both = [tracer.labels(target), [found.reshape(before + found.shape + after) for found in tracer.labels(mask)]]
    return tracer.merge([target, mask], [target.shape, (*before, *mask.shape, *after)], target.ndim, both)


def index_select(tracer: Tracer, call: Call) -> None:
    """Entries at given places along one dimension."""
    source, dim, places = call.args[:3]
    _mark_places(tracer, [places])
    tracer.set(call.outputs[0], mark_along(tracer, tracer.labels(source), {dim % source.ndim}, BY_NUMBER))


def gather(tracer: Tracer, call: Call) -> None:
    """Entries at given places along one dimension, which differ from place to place along the others."""
    source, dim, places = call.args[:3]
    tracer.set(call.outputs[0], _merged(tracer, [source, places], dim, places))


def scatter(tracer: Tracer, call: Call) -> None:
    """Values written or added to given places along one dimension (`scatter`, `index_add` and the like)."""
    target, dim, places = call.args[:3]
    operands = [tensor for tensor in call.tensors if tensor.ndim == target.ndim]
    if places.ndim < target.ndim:
        _mark_places(tracer, [places])
    _written(tracer, call, _merged(tracer, operands, dim, min(operands, key=Tensor.numel)))


def _merged(tracer: Tracer, operands: Sequence[Tensor], dim: int, smallest: Tensor) -> list[Labels]:
    """The common labels of tensors that correspond along all dimensions but one, as far as the smallest reaches."""
    rank, labels = smallest.ndim, []
    for tensor in operands:
        cut = {d for d in range(rank) if tensor.shape[d] != smallest.shape[d]}
        labels.append(mark_along(tracer, tracer.labels(tensor), cut | {dim % rank}, BY_NUMBER))
    shape = [1 if d == dim % rank else size for d, size in enumerate(smallest.shape)]
    return tracer.merge(operands, [shape] * len(operands), rank, labels)


def _written(tracer: Tracer, call: Call, labels: list[Labels]) -> None:
    target, out = call.args[0], call.outputs[0]
    if out is not target:
        tracer.set(out, labels)
    elif labels and not tracer.labels(target):
        tracer.fill(target)


def _mark_places(tracer: Tracer, places: Sequence[Tensor | None]) -> None:
    for tensor in places:
        for labels in () if tensor is None else tracer.labels(tensor):
            tracer.mark_unprunable(labels, "is a number of a place")


class _Picked:
    """What indexing by tensors does to dimensions.

    Those that are indexed become the dimensions of the index tensors, broadcast together: where they were if they were
    next to each other, and otherwise in front.
    """

    def __init__(self, source: Tensor, places: Sequence[Tensor | None]) -> None:
        given = [tensor for tensor in places if tensor is not None]
        indexed = [dim for dim, tensor in enumerate(places) if tensor is not None]
        self.dims = set(indexed)
        self.new_shape = np.broadcast_shapes(*(tuple(tensor.shape) for tensor in given))
        self.start = indexed[0] if indexed == [*range(indexed[0], indexed[-1] + 1)] else 0
        self.others = [dim for dim in range(source.ndim) if dim not in self.dims]
        shape = [source.shape[dim] for dim in self.others]
        self.shape = (*shape[: self.start], *self.new_shape, *shape[self.start :])
        self.rank = source.ndim

    def new_dims(self, values: Tensor) -> set[int]:
        """The dimensions of the index tensors in values that are broadcast to the result."""
        offset = self.start - (len(self.shape) - values.ndim)
        return {dim for dim in range(offset, offset + len(self.new_shape)) if dim >= 0}

    def moved(self, labels: Labels) -> Labels:
        """Labels that do not vary along the indexed dimensions, in the result."""
        kept = labels.reshape([labels.shape[dim] for dim in self.others])
        return np.expand_dims(kept, tuple(range(self.start, self.start + len(self.new_shape))))

    def moved_back(self, labels: Labels) -> Labels:
        """Labels of the result that do not vary along the index tensors' dimensions, in the source."""
        kept = labels.reshape([*labels.shape[: self.start], *labels.shape[self.start + len(self.new_shape) :]])
        return np.expand_dims(kept, tuple(sorted(self.dims)))
