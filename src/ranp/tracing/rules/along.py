"""Rules for operators that act along some dimensions: channels that lie along others pass through."""

import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from ranp.tracing._capture import Call
from ranp.tracing._labels import Labels, support
from ranp.tracing._propagate import Tracer

POSITIONS = "mixes positions that carry channels"


def mark_along(tracer: Tracer, found: Sequence[Labels], dims: set[int], reason: str) -> list[Labels]:
    """Mark labels that vary along some dimensions as unprunable, and return the others.

    Those that are coupled along these dimensions anyway are returned too, and then vary along them no more.
    """
    kept = []
    for labels in found:
        if not support(labels) & dims:
            kept.append(labels)
        elif tracer.coupled(labels, dims):
            kept.append(labels[tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(labels.ndim))])
        else:
            tracer.mark_unprunable(labels, reason)
    return kept


def mix_along(tracer: Tracer, found: Sequence[Labels], dims: set[int]) -> list[Labels]:
    """Note the labels that vary along some dimensions as mixed; the others are returned."""
    tracer.mixed.extend(labels.reshape(-1) for labels in found if support(labels) & dims)
    return [labels for labels in found if not support(labels) & dims]


def pool(tracer: Tracer, call: Call) -> None:
    """Pooling, interpolation and spatial padding: only the last dimensions change, and they carry no channels."""
    source = call.tensors[0]
    kept = mark_along(tracer, tracer.labels(source), _spatial(call, source), POSITIONS)
    for out in call.outputs:
        if out.ndim == source.ndim:
            tracer.set(out, kept)


def fractional_pool(tracer: Tracer, call: Call) -> None:
    """Pooling over random regions, which are drawn for every channel."""
    source, samples = call.args[0], call.args[3]
    pool(tracer, call)
    channels = tracer.vector(source, source.ndim - len(_spatial(call, source)) - 1)
    tracer.meet(channels, tracer.vector(samples, 1, channels))


def unpool(tracer: Tracer, call: Call) -> None:
    """Maxima put back to where they were: values and places are of the same channels."""
    source, places = call.tensors[:2]
    merged = tracer.merge([source, places], [source.shape, places.shape], source.ndim)
    tracer.set(call.outputs[0], mark_along(tracer, merged, _spatial(call, source), POSITIONS))


def sample(tracer: Tracer, call: Call) -> None:
    """Values at the points of a grid, whose coordinates are unprunable."""
    source, grid = call.tensors[:2]
    for labels in tracer.labels(grid):
        tracer.mark_unprunable(labels, "is a coordinate")
    tracer.set(call.outputs[0], mark_along(tracer, tracer.labels(source), set(range(2, source.ndim)), POSITIONS))


def _spatial(call: Call, tensor: Tensor) -> set[int]:
    """The last dimensions: as many as the operator's name says, or all after the second."""
    digits = re.search(r"([123])d", call.name)
    return set(range(tensor.ndim - int(digits.group(1)) if digits else 2, tensor.ndim))


def reduce(tracer: Tracer, call: Call) -> None:
    """Mean, sum, maximum, ... over dimensions; channels of activations are unprunable, those of weights are mixed.

    Channels that are coupled anyway (the branches of a split attention, say) can be reduced over.
    """
    source, dims = call.tensors[0], _dims(call)
    if isinstance(call.forward.module, nn.RMSNorm):
        for dim in dims:
            name = f"normalized_shape[{dim - source.ndim + len(dims)}]"
            tracer.attribute(name, tracer.vector(source, dim))
    if tracer.is_weight(source) or isinstance(call.forward.module, nn.RMSNorm):
        kept = mix_along(tracer, tracer.labels(source), dims)
    else:
        kept = mark_along(tracer, tracer.labels(source), dims, "reduces over channels")
    for out in call.outputs:
        if out.ndim == source.ndim:
            tracer.set(out, kept)
        elif out.ndim == source.ndim - len(dims):
            tracer.set(out, [labels.squeeze(axis=tuple(dims)) for labels in kept])


def softmax(tracer: Tracer, call: Call) -> None:
    """Operators that mix along one dimension and keep the shape: the same channels come out."""
    source = call.tensors[0]
    mark_along(tracer, tracer.labels(source), _dims(call), "mixes channels")
    for out in call.outputs:
        tracer.set(out, tracer.labels(source))


def arrange(tracer: Tracer, call: Call) -> None:
    """Sorting and transforms along some dimensions, which may change size."""
    kept = mark_along(tracer, tracer.labels(call.tensors[0]), _dims(call), "mixes channels")
    for out in call.outputs:
        tracer.set(out, kept)


def triangle(tracer: Tracer, call: Call) -> None:
    """Zeros on one side of a diagonal of the last two dimensions."""
    source, out = call.tensors[0], call.outputs[0]
    kept = mark_along(tracer, tracer.labels(source), {source.ndim - 2, source.ndim - 1}, POSITIONS)
    if out is not source:
        tracer.set(out, kept)


def diagonal(tracer: Tracer, call: Call) -> None:
    """A diagonal of two dimensions, which becomes a new last one."""
    source = call.tensors[0]
    dims = call.arg(2, "dim1", 0) % source.ndim, call.arg(3, "dim2", 1) % source.ndim
    kept = mark_along(tracer, tracer.labels(source), set(dims), POSITIONS)
    tracer.set(call.outputs[0], [labels.squeeze(dims)[..., np.newaxis] for labels in kept])


def windows(tracer: Tracer, call: Call) -> None:
    """Windows along a dimension, whose positions become a new last dimension (`Tensor.unfold`)."""
    source = call.tensors[0]
    kept = mark_along(tracer, tracer.labels(source), {call.args[1] % source.ndim}, POSITIONS)
    tracer.set(call.outputs[0], [labels[..., np.newaxis] for labels in kept])


# Where the dimension is given by the third argument, and where it is the last one if none is given.
_THIRD = {"norm", "linalg_vector_norm", "kthvalue", "topk"}
_LAST = {"sort", "argsort", "topk", "kthvalue", "mode"}


def _dims(call: Call) -> set[int]:
    """Dimensions that an operator acts on: all of them where none are given."""
    rank = call.tensors[0].ndim
    given = call.arg(2 if call.name in _THIRD else 1, "dim", -1 if call.name in _LAST else None)
    if isinstance(given, (bool, float, Tensor)) or given is None:
        return set(range(rank))
    dims = [given] if isinstance(given, int) else list(given)
    return {dim % rank for dim in dims} if dims else set(range(rank))
