"""Rules for operators that only move elements: labels move with them.

Where channels move to positions and back, or are regrouped, whole blocks are coupled.
"""

import math

import numpy as np
from torch import Tensor

from ranp.tracing._capture import Call
from ranp.tracing._labels import Labels, Shape, along, blocks, labels_along, oversized, pad_rank, support
from ranp.tracing._labels import reshape as reshape_labels
from ranp.tracing._propagate import Tracer
from ranp.tracing.rules.along import POSITIONS, mark_along


def reshape(tracer: Tracer, call: Call) -> None:
    """Views that keep the order of elements."""
    source, out = call.tensors[0], call.outputs[0]
    old, new = tuple(source.shape), tuple(out.shape)
    moved = []
    for found in tracer.labels(source):
        labels = tracer.distinct(found, _merged_with_others(found, old, new))
        dims = oversized(labels, old, new)
        if dims and tracer.couple(labels, dims).size == 1:
            tracer.mark_unprunable(found, "is reshaped into a dimension that mixes channels with positions")
        labels = tracer.couple(labels, dims)
        moved.append(_couple_split(tracer, reshape_labels(labels, old, new), old, new))
    tracer.set(out, moved)


def _merged_with_others(labels: Labels, old: Shape, new: Shape) -> list[int]:
    """Dimensions that carry channels and merge with dimensions that do not, such as heads with samples."""
    dims = []
    for held, _ in blocks(old, new):
        inside = [dim for dim in range(held.start, held.stop) if old[dim] > 1]
        wide = [dim for dim in inside if along(labels, dim)]
        dims += wide if len(wide) < len(inside) else []
    return dims


def _couple_split(tracer: Tracer, labels: Labels, old: Shape, new: Shape) -> Labels:
    """Couple channels whose dimension a view splits, since the view has to work with fewer of them.

    The size of one of its dimensions follows the channels: of the last one where the number of blocks is fixed (a
    channel shuffle, the heads of an attention), of the first one where that of a block is (a pixel shuffle). Channels
    at the same place along it are coupled. The shapes do not tell which it is: at first it is the last one, unless
    there are more than two and the first is the largest.

    Dimensions after it carry no channels from here on, because they may be pooled later.
    """
    for _, wanted in blocks(old, new):
        dims = [dim for dim in range(wanted.start, wanted.stop) if along(labels, dim)]
        if len(dims) < 2:
            continue
        wide = len(dims) > 2 and new[dims[0]] > max(new[dim] for dim in dims[1:])
        chosen = tracer.split(labels, dims if wide else dims[::-1])
        for dim in dims:
            coupled = tracer.couple(labels, [dim]) if dim != chosen else labels
            labels = coupled if dim > chosen else labels
    return labels


def permute(tracer: Tracer, call: Call) -> None:
    """Exchanges of dimensions."""
    source, out = call.tensors[0], call.outputs[0]
    order = list(range(source.ndim))
    if call.name == "permute":
        order = [dim % source.ndim for dim in call.args[1]]
    elif source.ndim > 1:
        a, b = call.args[1:3] if call.name.startswith("transpose") else (0, 1)
        order[a], order[b] = order[b], order[a]
    tracer.set(out, [labels.transpose(order) for labels in tracer.labels(source)])


def expand(tracer: Tracer, call: Call) -> None:
    """Broadcasting: along dimensions that grow all entries are alike."""
    source, out = call.tensors[0], call.outputs[0]
    tracer.set(out, [pad_rank(labels, out.ndim) for labels in tracer.labels(source)])
    _make_repeated(tracer, source, out)


def _make_repeated(tracer: Tracer, source: Tensor, out: Tensor) -> None:
    before = (1,) * (out.ndim - source.ndim) + tuple(source.shape)
    tracer.make(out, [dim for dim, size in enumerate(before) if size == 1 < out.shape[dim]])


def repeat(tracer: Tracer, call: Call) -> None:
    """Repetition along dimensions: the same channels again."""
    source, out, repeats = call.tensors[0], call.outputs[0], call.args[1]
    moved = []
    for found in tracer.labels(source):
        labels = pad_rank(found, out.ndim)
        moved.append(np.tile(labels, [n if along(labels, dim) else 1 for dim, n in enumerate(repeats)]))
    tracer.set(out, moved)
    _make_repeated(tracer, source, out)


def cut(tracer: Tracer, call: Call) -> None:
    """Slices, selections and splits.

    Parts of equal size are coupled position by position, so that a forward that splits in halves still can. Cutting at
    other places works only where nothing before the cut is removed; running the pruned model tells.
    """
    source = call.tensors[0]
    dim = int(call.arg(1 if call.name in ("select", "slice", "unbind") else 2, "dim", 0)) % source.ndim
    parts = _bounds(call, source, dim)
    size, widest = parts[0][1] - parts[0][0], max(stop - start for start, stop, _ in parts)
    found = []
    uneven = call.name in ("split", "unsafe_split") and parts[-1][1] - parts[-1][0] != size
    for labels in tracer.labels(source):
        if along(labels, dim) and uneven:
            # How many go into each part is one number, the same as at full width or computed from the sum.
            tracer.mark_unprunable(labels, "is split into parts of unequal size")
        elif along(labels, dim) and (widest == 1 or parts[0][2] != 1) and not tracer.coupled(labels, [dim]):
            tracer.mark_unprunable(labels, "is taken apart channel by channel")
        elif along(labels, dim) and 1 < size < source.shape[dim] and source.shape[dim] % size == 0:
            _couple_parts(tracer, labels, dim, size)
        found.append(labels)
    for out, (start, stop, step) in zip(call.outputs, parts, strict=True):
        moved = [_take(labels, dim, slice(start, stop, step)) for labels in found]
        tracer.set(out, [labels.squeeze(dim) for labels in moved] if out.ndim < source.ndim else moved)


def glu(tracer: Tracer, call: Call) -> None:
    """The first half times a gate that the second half computes: the same positions of both."""
    source, out = call.tensors[0], call.outputs[0]
    dim = int(call.arg(1, "dim", -1)) % source.ndim
    half = out.shape[dim]
    for labels in tracer.labels(source):
        if along(labels, dim):
            _couple_parts(tracer, labels, dim, half)
    tracer.set(out, [_take(labels, dim, slice(0, half)) for labels in tracer.labels(source)])


def as_strided(tracer: Tracer, call: Call) -> None:
    """Another order in memory. Where that changes the shape too, channels are unprunable."""
    source, out = call.tensors[0], call.outputs[0]
    if out.shape == source.shape:
        tracer.set(out, tracer.labels(source))
        return
    for labels in tracer.labels(source):
        tracer.mark_unprunable(labels, "is laid out by numbers")


def _bounds(call: Call, source: Tensor, dim: int) -> list[tuple[int, int, int]]:
    """Start, stop and step of every part along a dimension."""
    size = source.shape[dim]
    if call.name == "slice":
        start, stop, step = call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1)
        return [slice(start, stop, step).indices(size)]
    if call.name == "select":
        index = call.arg(2, "index") % size
        return [(index, index + 1, 1)]
    sizes = [1 if call.name == "unbind" else out.shape[dim] for out in call.outputs]
    starts = np.cumsum([0, *sizes]).tolist()
    return [(start, start + length, 1) for start, length in zip(starts, sizes, strict=False)]


def _couple_parts(tracer: Tracer, labels: Labels, dim: int, size: int) -> None:
    shape = list(labels.shape)
    shape[dim : dim + 1] = [shape[dim] // size, size]
    tracer.couple(labels.reshape(shape), [dim])


def _take(labels: Labels, dim: int, part: slice) -> Labels:
    return labels[(slice(None),) * dim + (part,)] if along(labels, dim) else labels


def concatenate(tracer: Tracer, call: Call) -> None:
    """Concatenation: labels side by side along the dimension, tied along all others."""
    out = call.outputs[0]
    operands = [tensor for tensor in call.args[0] if tensor.ndim == out.ndim]
    dim = int(call.arg(1, "dim", 0)) % out.ndim
    shapes = [[1 if d == dim else size for d, size in enumerate(tensor.shape)] for tensor in operands]
    merged = [labels for labels in tracer.merge(operands, shapes, out.ndim) if not along(labels, dim)]
    vectors = [tracer.vector(tensor, dim) for tensor in operands]
    if any(vector is not None for vector in vectors):
        parts = []
        for vector, tensor in zip(vectors, operands, strict=True):
            parts.append(tracer.fresh(tensor.shape[dim]) if vector is None else vector)
            if vector is None:
                tracer.mark_unprunable(parts[-1], "carries no channels")
        merged.append(labels_along(np.concatenate(parts), dim, out.ndim))
    tracer.set(out, merged)


def stack(tracer: Tracer, call: Call) -> None:
    """Stacking along a new dimension, which carries no channels."""
    operands, out = call.args[0], call.outputs[0]
    dim = int(call.arg(1, "dim", 0)) % out.ndim
    merged = tracer.merge(operands, [tensor.shape for tensor in operands], out.ndim - 1)
    tracer.set(out, [np.expand_dims(labels, dim) for labels in merged])


def pad(tracer: Tracer, call: Call) -> None:
    """Padding with a constant: along channels it adds channels that stay."""
    source, out, amounts = call.tensors[0], call.outputs[0], call.args[1]
    moved = []
    for found in tracer.labels(source):
        labels = found
        for step in range(len(amounts) // 2):
            dim = source.ndim - 1 - step
            before, after = amounts[2 * step : 2 * step + 2]
            if along(labels, dim):
                labels = _pad_channels(tracer, labels, dim, before, after)
        moved.append(labels)
    tracer.set(out, moved)


def _pad_channels(tracer: Tracer, labels: Labels, dim: int, before: int, after: int) -> Labels:
    parts = [_take(labels, dim, slice(max(-before, 0), labels.shape[dim] - max(-after, 0)))]
    for amount, place in ((before, 0), (after, 2)):
        if amount > 0:
            shape = [amount if d == dim else size for d, size in enumerate(labels.shape)]
            added = tracer.fresh(math.prod(shape)).reshape(shape)
            tracer.mark_unprunable(added, "is padding")
            parts.insert(place, added)
    return np.concatenate(parts, axis=dim)


def reorder(tracer: Tracer, call: Call) -> None:
    """Flips and rolls; along channels they depend on the width, so those are unprunable."""
    source, out = call.tensors[0], call.outputs[0]
    dims = call.args[1] if call.name == "flip" else call.arg(2, "dims", ())
    touched = {dim % source.ndim for dim in dims} or set(range(source.ndim))
    for labels in tracer.labels(source):
        if support(labels) & touched:
            tracer.mark_unprunable(labels, "reorders channels")
    tracer.set(out, [labels for labels in tracer.labels(source) if not support(labels) & touched])


def space_to_depth(tracer: Tracer, call: Call) -> None:
    """Every channel becomes several, one for each position it takes in (pixel unshuffle, image to columns)."""
    out = call.outputs[0]
    channels = _channels(tracer, call.tensors[0], 3)
    dim = out.ndim - (2 if call.name == "im2col" else 3)
    if channels is not None:
        tracer.set(out, [labels_along(np.repeat(channels, out.shape[dim] // channels.size), dim, out.ndim)])


def depth_to_space(tracer: Tracer, call: Call) -> None:
    """Several channels become one, and go together (pixel shuffle, columns to image)."""
    out = call.outputs[0]
    channels = _channels(tracer, call.tensors[0], 2 if call.name == "col2im" else 3)
    if channels is not None:
        blocks = tracer.couple(channels.reshape(out.shape[-3], -1), [1])
        tracer.set(out, [labels_along(blocks, -3, out.ndim)])


def channel_shuffle(tracer: Tracer, call: Call) -> None:
    """Channels of several blocks in turn: to keep the blocks equally wide, their same positions are coupled."""
    source, out = call.tensors[0], call.outputs[0]
    channels = _channels(tracer, source, source.ndim - 1)
    if channels is not None:
        blocks = channels.reshape(call.args[1], -1)
        tracer.couple(blocks, [0])
        tracer.set(out, [labels_along(blocks.T, 1, out.ndim)])


def _channels(tracer: Tracer, tensor: Tensor, from_end: int) -> Labels | None:
    """The labels along one dimension; those along later ones are unprunable."""
    dim = tensor.ndim - from_end
    mark_along(tracer, tracer.labels(tensor), set(range(dim + 1, tensor.ndim)), POSITIONS)
    return tracer.vector(tensor, dim)
