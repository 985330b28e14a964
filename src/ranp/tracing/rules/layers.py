"""Rules for convolutions and matrix products: the operators that read channels and make new ones."""

import math

import numpy as np
from torch import Tensor, nn

from ranp.tracing._capture import Call
from ranp.tracing._labels import Labels, along, labels_along
from ranp.tracing._propagate import LayerCall, Tracer
from ranp.tracing.rules.along import POSITIONS, mark_along
from ranp.tracing.rules.attention import contract, multihead
from ranp.tracing.rules.elementwise import unknown


def convolution(tracer: Tracer, call: Call) -> None:
    """Convolution of any rank, transposed or not.

    A weight is (out, in / groups, ...), a transposed one (in, out / groups, ...). The input's channels are tied to the
    weight's input dimension; the weight's output dimension labels the result.
    """
    source, weight, bias, *_, transposed, _, groups = call.args[:9]
    out = call.outputs[0]
    rows = [labels for labels in tracer.labels(source) if not along(labels, 1)]
    batch = mark_along(tracer, rows, set(range(2, source.ndim)), POSITIONS)
    channels = tracer.vector(source, 1)
    read = channels if groups == 1 else None
    first = tracer.vector(weight, 0, channels if transposed or groups > 1 else None)
    second = tracer.vector(weight, 1, None if transposed else read)
    if groups == 1:
        reading, made = (first, second) if transposed else (second, first)
        tracer.meet(channels, reading)
        _read(tracer, reading)
    else:
        made = _grouped(tracer, call, channels, first, second)
    if made is None:
        made = _fixed(tracer, out.shape[1])
    if bias is not None and made is not None:
        tracer.meet(made, tracer.vector(bias, 0))
    tracer.set(out, batch if made is None else [*batch, labels_along(made, 1, out.ndim)])
    runs = hasattr(call.forward.module, "in_channels")
    if runs or _is_transposed(tracer, call, weight) is (_source_dim(tracer, made, int(transposed)) == 1):
        tracer.attribute("in_channels", channels, None if runs else weight)
        tracer.attribute("out_channels", made, None if runs else weight)
    macs = source.shape[0] * math.prod((source if transposed else out).shape[2:]) * weight.numel()
    tracer.multiply_adds(macs, [*batch, first, second])
    read = None if _passes_on(weight, transposed, groups) else channels
    _record(tracer, call, weight, bias, read, made, out_dim=int(transposed), blocks=groups, macs=macs)


def _source_dim(tracer: Tracer, made: Labels | None, default: int) -> int:
    """The dimension of the parameter, of which the weight may be a transposed view, that labels the result."""
    source = tracer.source(made)
    return default if source is None else source.dim


def _is_transposed(tracer: Tracer, call: Call, weight: Tensor) -> bool | None:
    """Whether the module that holds a weight is a transposed convolution; None if it is no convolution."""
    inside = call.path + "." if call.path else ""
    held = (tracer.base_name(weight) or tracer.origins.get(id(weight), "")).rpartition(".")[0]
    if not held.startswith(inside):
        return None
    return getattr(call.forward.module.get_submodule(held.removeprefix(inside)), "transposed", None)


def _grouped(
    tracer: Tracer, call: Call, channels: Labels | None, first: Labels | None, second: Labels | None
) -> Labels | None:
    """Tie the channels of a grouped convolution; returns the labels of its output channels.

    Where blocks are small (depthwise convolutions above all), whole blocks are removed, inputs and outputs together;
    where they are large and few, the same positions of all blocks are coupled.
    """
    weight, transposed, groups = call.args[1], call.args[6], call.args[8]
    ins, outs = _per_block(weight, transposed, groups)
    if first is None:
        tracer.mark_unprunable(channels, "meets a weight that carries no channels")
        return None
    rows = first.reshape(groups, -1)
    inputs = None if channels is None else channels.reshape(groups, ins)
    if _passes_on(weight, transposed, groups):
        block = tracer.couple(rows, [1]).reshape(-1)
        tracer.meet(block, None if inputs is None else tracer.couple(inputs, [1]).reshape(-1))
        tracer.mark_unprunable(second, "is a block of a grouped convolution")
        tracer.attribute("groups", block, None if hasattr(call.forward.module, "groups") else weight)
        return np.repeat(block, outs) if transposed else first
    position = tracer.couple(rows, [0]).reshape(-1)
    columns = None if inputs is None else tracer.couple(inputs, [0]).reshape(-1)
    if transposed:
        tracer.meet(columns, position)
        _read(tracer, first)
        return None if second is None else np.tile(second, groups)
    tracer.meet(columns, second)
    _read(tracer, second)
    return first


def _per_block(weight: Tensor, transposed: bool, groups: int) -> tuple[int, int]:
    """Input and output channels of each block."""
    rows, columns = weight.shape[:2]
    return (rows // groups, columns) if transposed else (columns, rows // groups)


def _passes_on(weight: Tensor, transposed: bool, groups: int) -> bool:
    """Whether a convolution's blocks are so small that they are removed as a whole."""
    return groups > 1 and groups >= min(_per_block(weight, transposed, groups))


def multiply(tracer: Tracer, call: Call) -> None:
    """Matrix products: the contracted dimension of both sides is tied, the outer dimensions label the result."""
    bias, a, b, inner = operands(call)
    out, outer = call.outputs[0], 2 * b.ndim - 3 - inner
    weight = next((side for side in (b, a) if tracer.is_weight(side)), None)
    if weight is None:
        contract(tracer, a, b, out, inner=inner, bias=bias)
        return
    left, right, made = tracer.vector(a, -1), tracer.vector(b, inner), tracer.vector(b, outer)
    rows = [labels for labels in tracer.labels(a) if not along(labels, -1)]
    macs = a.numel() * b.shape[outer]
    tracer.multiply_adds(macs, [*rows, left, made])
    tracer.meet(left, right)
    _read(tracer, right if weight is b else left)
    for labels in tracer.labels(b):
        if b.ndim == 3 and along(labels, 0):
            tracer.mark_unprunable(labels, "is a batch of matrices")
    if made is None and weight is b:
        made = _fixed(tracer, b.shape[outer])
    if isinstance(module := call.forward.module, nn.MultiheadAttention):
        multihead(tracer, module, b, made)
    if bias is not None and bias.numel() > 1:
        tracer.meet(made, tracer.vector(bias, -1))
    columns = [] if made is None else [labels_along(made, -1, out.ndim)]
    tracer.set(out, [*rows, *columns])
    if weight is b:
        found = tracer.source(right if made is None else made)
        out_dim = 0 if found is None else (1 - found.dim if made is None else found.dim)
        # The module that runs it, or else the one that holds the weight, as an attention holds that of its output. Of
        # the latter, a transposed weight has the channels of the other numbers.
        runs = hasattr(call.forward.module, "in_features")
        if runs or out_dim == 0:
            tracer.attribute("in_features", left, None if runs else b)
            tracer.attribute("out_features", made, None if runs else b)
        if tracer.origin(b).endswith(("weight_ih", "weight_ih_l0")):
            tracer.attribute("input_size", left)  # of a recurrent layer, whose states are unprunable
        _record(tracer, call, b, bias, left, made, out_dim=out_dim, blocks=1, macs=macs)


def bilinear(tracer: Tracer, call: Call) -> None:
    """A bilinear layer: an output for every matrix of its weight, which is multiplied with two inputs from both sides.

    All operands get the dimensions (batch, output, first input, second input). Torch counts no multiply-adds for it.
    """
    left, weight, right = call.args[:3]
    if call.args[3:7] != ([1, 3], [0], [1, 2], [2, 3]) or not tracer.is_weight(weight):
        unknown(tracer, call)
        return
    made, *inputs = (tracer.vector(weight, dim) for dim in range(3))
    for read, source, name in zip(inputs, (left, right), ("in1_features", "in2_features"), strict=True):
        channels = tracer.vector(source, 1)
        tracer.meet(channels, read)
        _read(tracer, read)
        tracer.attribute(name, channels)
    out = call.outputs[0]
    rows = [[labels for labels in tracer.labels(source) if not along(labels, 1)] for source in (left, right)]
    batch = tracer.merge([left, right], [[len(out), 1]] * 2, 2, rows)
    made = _fixed(tracer, out.shape[1]) if made is None else made
    tracer.set(out, batch if made is None else [*batch, labels_along(made, 1, 2)])
    tracer.attribute("out_features", made)
    _record(tracer, call, weight, None, None, made, out_dim=0, blocks=1, macs=0)


def operands(call: Call) -> tuple[Tensor | None, Tensor, Tensor, int]:
    """Of a matrix product: bias, left side, right side, and the right side's contracted dimension."""
    if call.name == "linear":
        return call.arg(2, "bias"), call.args[0], call.args[1], 1
    bias, a, b = call.args[:3] if call.name in ("addmm", "baddbmm") else (None, *call.args[:2])
    return bias, a, b, b.ndim - 2


def _fixed(tracer: Tracer, width: int) -> Labels | None:
    """Labels for the outputs of a layer whose weight carries none; they are unprunable."""
    if width == 1:
        return None
    made = tracer.fresh(width)
    tracer.mark_unprunable(made, "has a weight that an operator without a rule computed")
    return made


def _read(tracer: Tracer, labels: Labels | None) -> None:
    if labels is not None:
        tracer.reads.append(labels)


def _record(
    tracer: Tracer,
    call: Call,
    weight: Tensor,
    bias: Tensor | None,
    inputs: Labels | None,
    made: Labels | None,
    *,
    out_dim: int,
    blocks: int,
    macs: int,
) -> None:
    """Note the run of a layer whose weight is a parameter, or computed from one."""
    held = tracer.origin(weight) if tracer.is_weight(weight) else None
    if held not in tracer.parameters:
        return
    out = call.outputs[0]
    width = out.shape[1] if call.name == "convolution" else out.shape[-1]
    name = tracer.names.get(id(bias)) if bias is not None else None
    # A weight of a matrix product may be a parameter that is transposed; that of a convolution may not.
    computed = id(weight) not in tracer.names and (call.name == "convolution" or not tracer.is_permuted(weight))
    input_width = call.args[0].shape[1] if call.name == "convolution" else operands(call)[1].shape[-1]
    call_of_layer = LayerCall(
        held, name, inputs, input_width, made, out_dim, blocks, width, macs, out.numel(), computed
    )
    tracer.seen.layers.append(call_of_layer)
