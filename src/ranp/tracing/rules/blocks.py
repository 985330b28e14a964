"""Rules for operators that move channels to positions and back, or regroup them: whole blocks are coupled."""

import numpy as np
from torch import Tensor

from ranp.tracing._capture import Call
from ranp.tracing._labels import Labels, labels_along
from ranp.tracing._propagate import Tracer
from ranp.tracing.rules.along import POSITIONS, mark_along


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
    """Channels of several blocks in turn: the blocks stay equally wide, so the same positions of all of them go."""
    source, out = call.tensors[0], call.outputs[0]
    channels = _channels(tracer, source, source.ndim - 1)
    if channels is not None:
        blocks = channels.reshape(call.args[1], -1)
        tracer.couple(blocks, [0])
        tracer.set(out, [labels_along(blocks.T, 1, out.ndim)])


def _channels(tracer: Tracer, tensor: Tensor, from_end: int) -> Labels | None:
    """The labels along one dimension; those along later ones stay whole."""
    dim = tensor.ndim - from_end
    mark_along(tracer, tracer.labels(tensor), set(range(dim + 1, tensor.ndim)), POSITIONS)
    return tracer.vector(tensor, dim)
