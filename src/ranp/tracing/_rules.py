"""What each operator does to channel labels: one small function per kind of operator, one row per operator.

A rule reads the labels of the operator's arguments, ties or freezes them, and gives labels to its outputs. An operator
without a row is elementwise if torch says so (its `pointwise` tag); otherwise `unknown` freezes all that it touches.
"""

from ranp.tracing import _rules_along as along
from ranp.tracing import _rules_blocks as blocks
from ranp.tracing import _rules_layers as layers
from ranp.tracing import _rules_norms as norms
from ranp.tracing import _rules_views as views
from ranp.tracing._labels import laid_along
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
    """Rows of a table: the entries stay, their features are channels."""
    table, out = call.args[0], call.outputs[0]
    features = tracer.vector(table, 1)
    if features is not None:
        tracer.set(out, [laid_along(features, -1, out.ndim)])


def _table(rules: dict[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.items() for name in names.split()}


RULES: dict[str, Rule] = {"pointwise": pointwise} | _table(
    {
        prelu: "_prelu_kernel",
        pointwise: "copy where masked_fill lerp addcmul addcdiv hardswish mish gelu threshold fill zero",
        unrelated: "new_empty new_zeros new_ones new_full zeros ones full empty arange scalar_tensor rand randn",
        same: "clone contiguous detach alias _to_copy to lift_fresh dropout native_dropout empty_like zeros_like"
        " ones_like full_like rand_like randn_like new_empty_strided bernoulli rrelu_with_noise",
        along.pool: "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"
        " _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
        " adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d"
        " _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d"
        " upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa"
        " _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d"
        " replication_pad2d replication_pad3d",
        along.reduce: "mean sum amax amin max min argmax argmin median nanmedian mode kthvalue any all prod"
        " var var_mean std std_mean linalg_vector_norm norm logsumexp",
        along.softmax: "_softmax _log_softmax _safe_softmax cumsum cumprod",
        along.unpool: "max_unpool2d max_unpool3d",
        along.sample: "grid_sampler_2d grid_sampler_3d cudnn_grid_sampler",
        along.arrange: "sort argsort topk _fft_r2c _fft_c2c _fft_c2r",
        along.pick: "index index_select",
        along.windows: "unfold",
        norms.batch_norm: "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit"
        " _native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update",
        norms.group_norm: "native_group_norm",
        norms.layer_norm: "native_layer_norm _fused_rms_norm",
        norms.weight_norm: "_weight_norm_interface",
        embedding: "embedding",
        blocks.space_to_depth: "pixel_unshuffle im2col",
        blocks.depth_to_space: "pixel_shuffle col2im",
        blocks.channel_shuffle: "channel_shuffle native_channel_shuffle",
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
        views.reorder: "flip roll rot90",
        layers.convolution: "convolution",
        layers.multiply: "mm addmm bmm baddbmm linear",
    }
)
