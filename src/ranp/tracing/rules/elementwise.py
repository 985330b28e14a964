"""Rules for elementwise operators, for new tensors, and for operators that keep the shape of their input."""

import numpy as np
from torch import Tensor

from ranp.tracing._capture import Call
from ranp.tracing._labels import labels_along
from ranp.tracing._propagate import Tracer
from ranp.tracing.rules.along import mark_along


def unknown(tracer: Tracer, call: Call) -> None:
    """No rule: all channels that it touches are unprunable."""
    for tensor in call.tensors:
        for labels in tracer.labels(tensor):
            tracer.mark_unprunable(labels, "has no rule")


def pointwise(tracer: Tracer, call: Call) -> None:
    """Elementwise with broadcasting: operands are tied, and the result carries their labels."""
    out = call.outputs[0]
    operands = [tensor for tensor in call.tensors if tensor.numel() > 1]
    merged = tracer.merge(operands, [tensor.shape for tensor in operands], out.ndim)
    if not any(out is tensor for tensor in call.tensors):
        tracer.set(out, merged)
    elif not tracer.labels(out) and any(map(tracer.labels, operands)):
        tracer.fill(out)


def prelu(tracer: Tracer, call: Call) -> None:
    """A leaky ReLU whose slopes, where there is one for each channel, follow the input."""
    pointwise(tracer, call)
    tracer.attribute("num_parameters", tracer.vector(call.tensors[1], 1))


def made(tracer: Tracer, call: Call) -> None:
    """New tensors all of whose entries are alike: they carry no channels until some are written or meet them."""
    for out in call.outputs:
        tracer.make(out, range(out.ndim))


def untouched(tracer: Tracer, call: Call) -> None:
    """Values are overwritten in place, or exchanged between processes: the channels stay what they are."""


def drawn(tracer: Tracer, call: Call) -> None:
    """Random numbers of which the parameters are numbers, or tensors."""
    (pointwise if call.tensors else made)(tracer, call)


def same(tracer: Tracer, call: Call) -> None:
    """The result has its first argument's shape and channels."""
    source = call.tensors[0]
    for out in call.outputs:
        if out.shape == source.shape and out is not source:
            tracer.set(out, tracer.labels(source))


def look_up(tracer: Tracer, call: Call) -> None:
    """Every element of one tensor is compared with all of another, which therefore has to stay as it is."""
    source, table = reversed(call.args[:2]) if call.name == "searchsorted" else call.args[:2]
    for labels in tracer.labels(table) if isinstance(table, Tensor) else ():
        tracer.mark_unprunable(labels, "is a table that elements are looked up in")
    if isinstance(source, Tensor):
        tracer.set(call.outputs[0], tracer.labels(source))


def view_as_real(tracer: Tracer, call: Call) -> None:
    """Real and imaginary parts along a new last dimension."""
    tracer.set(call.outputs[0], [labels[..., np.newaxis] for labels in tracer.labels(call.args[0])])


def view_as_complex(tracer: Tracer, call: Call) -> None:
    """The two entries of the last dimension as real and imaginary part."""
    source = call.args[0]
    kept = mark_along(tracer, tracer.labels(source), {source.ndim - 1}, "becomes a real or imaginary part")
    tracer.set(call.outputs[0], [labels.squeeze(-1) for labels in kept])


def embedding(tracer: Tracer, call: Call) -> None:
    """Rows of a table: all entries are kept, and their features are channels."""
    tracer.mark_unprunable(tracer.vector(call.args[0], 0), "is a row of a table")
    out, features = call.outputs[0], tracer.vector(call.args[0], 1)
    if features is not None:
        tracer.set(out, [labels_along(features, -1, out.ndim)])
