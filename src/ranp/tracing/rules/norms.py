"""Rules for norms: scale, shift and statistics follow the channels, or mix them."""

from ranp.tracing._capture import Call
from ranp.tracing._labels import along, support
from ranp.tracing._propagate import Tracer
from ranp.tracing.rules.along import mix_along


def batch_norm(tracer: Tracer, call: Call) -> None:
    """Batch norm: scale, shift and statistics follow dimension 1 of the input.

    An instance norm arrives here too, as a batch norm over a (1, N * C, ...) view with repeated parameters.
    """
    source = call.arg(0, "input")
    channels = tracer.vector(source, 1)
    for tensor in call.tensors[1:]:
        if tensor.numel() > 1:
            tracer.meet(channels, tracer.vector(tensor, 0))
    if channels is not None:
        # An instance norm's view repeats the channels once per sample; the module counts them once.
        held = getattr(call.forward.module, "num_features", channels.size)
        tracer.attribute("num_features", channels[:held])
    mix_along(tracer, tracer.labels(source), set(range(source.ndim)) - {1})
    tracer.set(call.outputs[0], tracer.labels(source))
    for statistic in call.outputs[1:]:
        if statistic.ndim == 1 and channels is not None and statistic.numel() == channels.size:
            tracer.set(statistic, [channels])


def group_norm(tracer: Tracer, call: Call) -> None:
    """Group norm: either whole blocks are removed, or equally many channels from each.

    Blocks are independent of each other, so removing whole ones is exact; where blocks are large and few, the same
    positions of all blocks are coupled instead, which keeps the counts equal but changes the statistics.
    """
    source, groups = call.args[0], call.args[6]
    channels = tracer.vector(source, 1)
    for tensor in call.tensors[1:]:
        tracer.meet(channels, tracer.vector(tensor, 0))
    tracer.set(call.outputs[0], tracer.labels(source))
    if channels is None:
        return
    table = channels.reshape(groups, -1)
    tracer.attribute("num_channels", channels)
    if groups >= table.shape[1]:
        kept = tracer.couple(table, [1])
        tracer.attribute("num_groups", kept if groups > 1 else None)
        for statistic in call.outputs[1:]:
            tracer.set(statistic, [kept.reshape(1, -1)])
    else:
        tracer.couple(table, [0])
        tracer.mixed.append(channels)


def layer_norm(tracer: Tracer, call: Call) -> None:
    """Layer norm: scale and shift follow the input; normalizing over channels mixes them."""
    source, shape = call.args[0], call.args[1]
    operands = [source, *call.tensors[1:]]
    merged = tracer.merge(operands, [tensor.shape for tensor in operands], source.ndim)
    for labels in merged:
        for dim in range(source.ndim - len(shape), source.ndim):
            if along(labels, dim):
                tracer.mixed.append(labels.reshape(-1))
                tracer.attribute(f"normalized_shape[{dim - source.ndim + len(shape)}]", tracer.vector(source, dim))
    tracer.set(call.outputs[0], merged)
    for statistic in call.outputs[1:]:
        tracer.set(statistic, [labels for labels in merged if max(support(labels)) < source.ndim - len(shape)])


def weight_norm(tracer: Tracer, call: Call) -> None:
    """Weight norm: the norm of each output channel's weights is a parameter of its own and counts all their inputs."""
    direction, magnitude, dim = call.args[0], call.args[1], call.arg(2, "dim", 0) % call.args[0].ndim
    tracer.meet(tracer.vector(direction, dim), tracer.vector(magnitude, dim))
    mix_along(tracer, tracer.labels(direction), set(range(direction.ndim)) - {dim})
    tracer.set(call.outputs[0], tracer.labels(direction))
    tracer.set(call.outputs[1], tracer.labels(magnitude))
