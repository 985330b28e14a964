"""Rules for elementwise operators, for new tensors, and for operators that keep the shape of their input."""

from ranp.tracing._capture import Call
from ranp.tracing._labels import labels_along
from ranp.tracing._propagate import Tracer


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
    elif merged and not tracer.labels(out):
        tracer.fill(out)


def prelu(tracer: Tracer, call: Call) -> None:
    """A leaky ReLU whose slopes, where there is one for each channel, follow the input."""
    pointwise(tracer, call)
    tracer.attribute("num_parameters", tracer.vector(call.tensors[1], 1))


def unrelated(tracer: Tracer, call: Call) -> None:
    """New tensors that share no more than a device with an argument: they carry no channels, until some are written."""
    for out in call.outputs:
        tracer.make(out)


def same(tracer: Tracer, call: Call) -> None:
    """The result has its first argument's shape and channels."""
    source = call.tensors[0]
    for out in call.outputs:
        if out.shape == source.shape and out is not source:
            tracer.set(out, tracer.labels(source))


def embedding(tracer: Tracer, call: Call) -> None:
    """Rows of a table: all entries are kept, and their features are channels."""
    out, features = call.outputs[0], tracer.vector(call.args[0], 1)
    if features is not None:
        tracer.set(out, [labels_along(features, -1, out.ndim)])
