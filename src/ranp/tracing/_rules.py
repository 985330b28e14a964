"""What each operator does to channel labels: one small function per kind of operator, one row per operator.

A rule reads the labels of the operator's arguments, ties or freezes them, and gives labels to its outputs. An operator
without a row is elementwise if torch says so (its `pointwise` tag); otherwise `unknown` freezes all that it touches.
"""

import re
from collections.abc import Sequence

from torch import Tensor

from ranp.tracing import _rules_layers as layers
from ranp.tracing import _rules_views as views
from ranp.tracing._labels import Labels, along, support
from ranp.tracing._records import Call
from ranp.tracing._tracer import Rule, Tracer


def unknown(tracer: Tracer, call: Call) -> None:
    """No rule: whatever channels it touches stay whole."""
    for tensor in call.tensors:
        for labels in tracer.labels(tensor):
            tracer.freeze(labels, "has no rule")


def pointwise(tracer: Tracer, call: Call) -> None:
    """Elementwise with broadcasting: operands are tied, and the result carries their labels."""
    out = call.outputs[0]
    operands = [tensor for tensor in call.tensors if tensor.numel() > 1]
    merged = tracer.merge(operands, [tensor.shape for tensor in operands], out.ndim)
    if not any(out is tensor for tensor in call.tensors):
        tracer.set(out, merged)


def prelu(tracer: Tracer, call: Call) -> None:
    """A leaky ReLU whose slopes, where there is one for each channel, follow the input."""
    pointwise(tracer, call)
    tracer.attribute("num_parameters", tracer.vector(call.tensors[1], 1))


def unrelated(tracer: Tracer, call: Call) -> None:
    """New tensors that share no more than a device with an argument: they carry no channels."""


def same(tracer: Tracer, call: Call) -> None:
    """The result has its first argument's shape and channels."""
    source = call.tensors[0]
    for out in call.outputs:
        if out.shape == source.shape and out is not source:
            tracer.set(out, tracer.labels(source))


def pool(tracer: Tracer, call: Call) -> None:
    """Pooling, interpolation and spatial padding: only the last dimensions change, and they carry no channels."""
    source = call.tensors[0]
    digits = re.search(r"([123])d", call.name)
    spatial = set(range(source.ndim - int(digits.group(1)) if digits else 2, source.ndim))
    kept = _freeze_along(
        tracer, tracer.labels(source), spatial, "mixes positions that carry channels", unless_coupled=False
    )
    for out in call.outputs:
        if out.ndim == source.ndim:
            tracer.set(out, kept)


def reduce(tracer: Tracer, call: Call) -> None:
    """Mean, sum, maximum, ... over dimensions; activations' channels stay whole, those of weights are mixed.

    Channels that are coupled anyway (the branches of a split attention, say) can be reduced over.
    """
    source, dims = call.tensors[0], _dims(call)
    if tracer.is_weight(source):
        kept = _mix_along(tracer, tracer.labels(source), dims)
    else:
        kept = _freeze_along(tracer, tracer.labels(source), dims, "reduces over channels")
    kept = [labels[tuple(slice(0, 1) if dim in dims else slice(None) for dim in range(source.ndim))] for labels in kept]
    for out in call.outputs:
        if out.ndim == source.ndim:
            tracer.set(out, kept)
        elif out.ndim == source.ndim - len(dims):
            tracer.set(out, [labels.squeeze(axis=tuple(dims)) for labels in kept])


def softmax(tracer: Tracer, call: Call) -> None:
    """Operators that mix along one dimension and keep the shape: the same channels come out."""
    source = call.tensors[0]
    _freeze_along(tracer, tracer.labels(source), _dims(call), "mixes channels")
    for out in call.outputs:
        tracer.set(out, tracer.labels(source))


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
        held = getattr(call.module, "num_features", channels.size)
        tracer.attribute("num_features", channels[:held])
    _mix_along(tracer, tracer.labels(source), set(range(source.ndim)) - {1})
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
    """Layer norm: scale and shift follow the input; normalising over channels mixes them."""
    source, shape = call.args[0], call.args[1]
    operands = [source, *call.tensors[1:]]
    merged = tracer.merge(operands, [tensor.shape for tensor in operands], source.ndim)
    for labels in merged:
        for dim in range(source.ndim - len(shape), source.ndim):
            if along(labels, dim):
                tracer.mixed.append(labels.reshape(-1))
                tracer.attribute(f"normalized_shape[{dim - source.ndim + len(shape)}]", tracer.vector(source, dim))
    tracer.set(call.outputs[0], merged)


def embedding(tracer: Tracer, call: Call) -> None:
    """Rows of a table: the entries stay, their features are channels."""
    table, out = call.args[0], call.outputs[0]
    features = tracer.vector(table, 1)
    if features is not None:
        tracer.set(out, [features.reshape([1] * (out.ndim - 1) + [-1])])


def _freeze_along(
    tracer: Tracer, found: Sequence[Labels], dims: set[int], reason: str, *, unless_coupled: bool = True
) -> list[Labels]:
    """Freeze the labels that vary along some dimensions; the others are returned."""
    kept = []
    for labels in found:
        if support(labels) & dims and not (unless_coupled and tracer.coupled(labels, dims)):
            tracer.freeze(labels, reason)
        else:
            kept.append(labels)
    return kept


def _mix_along(tracer: Tracer, found: Sequence[Labels], dims: set[int]) -> list[Labels]:
    """Note the labels that vary along some dimensions as mixed; the others are returned."""
    kept = []
    for labels in found:
        if support(labels) & dims:
            tracer.mixed.append(labels.reshape(-1))
        else:
            kept.append(labels)
    return kept


def weight_norm(tracer: Tracer, call: Call) -> None:
    """Weight norm: the norm of each output channel's weights is a parameter of its own and counts all their inputs."""
    direction, magnitude, dim = call.args[0], call.args[1], call.arg(2, "dim", 0) % call.args[0].ndim
    tracer.meet(tracer.vector(direction, dim), tracer.vector(magnitude, dim))
    _mix_along(tracer, tracer.labels(direction), set(range(direction.ndim)) - {dim})
    tracer.set(call.outputs[0], tracer.labels(direction))
    tracer.set(call.outputs[1], tracer.labels(magnitude))


def _dims(call: Call) -> set[int]:
    """Dimensions that a reduction acts on: all of them where none are given."""
    rank = call.tensors[0].ndim
    given = call.arg(2 if call.name in ("norm", "linalg_vector_norm") else 1, "dim")
    if isinstance(given, (bool, float, Tensor)) or given is None:
        return set(range(rank))
    dims = [given] if isinstance(given, int) else list(given)
    return {dim % rank for dim in dims} if dims else set(range(rank))


def _table(rules: dict[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


RULES: dict[str, Rule] = {"pointwise": pointwise} | _table(
    {
        prelu: "_prelu_kernel",
        pointwise: "copy where masked_fill lerp addcmul addcdiv hardswish mish gelu threshold fill zero",
        unrelated: "new_empty new_zeros new_ones new_full zeros ones full empty arange scalar_tensor rand randn",
        same: "clone contiguous detach alias _to_copy to lift_fresh dropout native_dropout empty_like zeros_like"
        " ones_like full_like rand_like randn_like new_empty_strided bernoulli rrelu_with_noise",
        pool: "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"
        " _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
        " adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d"
        " _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d"
        " upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa"
        " _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d"
        " replication_pad2d replication_pad3d",
        reduce: "mean sum amax amin var var_mean std std_mean prod linalg_vector_norm norm logsumexp",
        softmax: "_softmax _log_softmax _safe_softmax cumsum cumprod",
        batch_norm: "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit"
        " _native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update",
        group_norm: "native_group_norm",
        layer_norm: "native_layer_norm _fused_rms_norm",
        weight_norm: "_weight_norm_interface",
        embedding: "embedding",
        views.reshape: "view _unsafe_view reshape _reshape_alias unsqueeze squeeze",
        views.permute: "permute transpose t",
        views.expand: "expand",
        views.repeat: "repeat",
        views.glu: "glu",
        views.as_strided: "as_strided",
        views.cut: "slice select split split_with_sizes unbind",
        views.concatenate: "cat",
        views.stack: "stack",
        views.pad: "constant_pad_nd",
        views.reorder: "flip roll",
        layers.convolution: "convolution",
        layers.multiply: "mm addmm bmm baddbmm linear",
    }
)
