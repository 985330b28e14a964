"""The table of rules: what each operator does to channel labels, with one module per family of operators.

A rule is a function of the tracer and a call. It reads the labels of the operator's arguments, ties them or marks them
as unprunable, and labels the outputs. An operator without a rule is elementwise if torch says so (its `pointwise` tag);
otherwise the channels that it touches are unprunable.
"""

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import torch

from ranp.tracing._capture import Call
from ranp.tracing._propagate import Rule
from ranp.tracing.rules import along, elementwise, indexing, layers, norms, views

# Names of operators of torch's namespace `aten`.
_ATEN: dict[Rule, str] = {
    elementwise.prelu: "_prelu_kernel",
    # Those that some version of torch does not tag at all.
    elementwise.pointwise: (
        "copy where masked_fill lerp addcmul addcdiv threshold fill zero abs leaky_relu elu celu selu hardtanh "
        "hardswish hardsigmoid mish gelu floor_divide complex polar"
    ),
    elementwise.made: "new_empty new_zeros new_ones new_full zeros ones full empty rand randn",
    elementwise.drawn: "normal bernoulli",
    elementwise.same: (
        "clone contiguous detach alias _to_copy to lift_fresh dropout native_dropout empty_like zeros_like "
        "ones_like full_like rand_like randn_like randint_like new_empty_strided rrelu_with_noise log_sigmoid_forward "
        "poisson _standard_gamma _conj resolve_conj _neg_view resolve_neg"
    ),
    elementwise.untouched: "normal_ uniform_ exponential_ geometric_ log_normal_ cauchy_ random_",
    elementwise.look_up: "bucketize searchsorted isin",
    elementwise.view_as_real: "view_as_real",
    elementwise.view_as_complex: "view_as_complex",
    along.pool: (
        "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
        "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d "
        "_upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d"
    ),
    along.reduce: (
        "mean sum amax amin max min argmax argmin median nanmedian mode kthvalue any all prod var var_mean "
        "std std_mean linalg_vector_norm norm logsumexp aminmax nansum count_nonzero"
    ),
    along.softmax: "_softmax _log_softmax _safe_softmax cumsum cumprod cummax cummin logcumsumexp",
    along.fractional_pool: "fractional_max_pool2d fractional_max_pool3d",
    along.unpool: "max_unpool2d max_unpool3d",
    along.sample: "grid_sampler_2d grid_sampler_3d cudnn_grid_sampler",
    along.arrange: "sort argsort topk _fft_r2c _fft_c2c _fft_c2r",
    along.triangle: "tril triu",
    along.diagonal: "diagonal",
    along.windows: "unfold",
    norms.batch_norm: (
        "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_no_update"
    ),
    norms.group_norm: "native_group_norm",
    norms.layer_norm: "native_layer_norm _fused_rms_norm",
    norms.weight_norm: "_weight_norm_interface",
    elementwise.embedding: "embedding",
    indexing.index: "index _unsafe_index",
    indexing.index_put: "index_put _unsafe_index_put",
    indexing.index_select: "index_select",
    indexing.gather: "gather",
    indexing.scatter: "scatter scatter_add scatter_reduce index_add index_copy index_fill index_reduce",
    views.space_to_depth: "pixel_unshuffle im2col",
    views.depth_to_space: "pixel_shuffle col2im",
    views.channel_shuffle: "channel_shuffle native_channel_shuffle",
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
    layers.bilinear: "_trilinear",
    layers.multiply: "mm addmm bmm baddbmm linear",
}

# Those that exchange values between processes.
_DISTRIBUTED: dict[Rule, str] = {
    elementwise.untouched: "c10d::broadcast_ c10d::allreduce_ c10d::allreduce_coalesced_",
    elementwise.same: (
        "_c10d_functional::all_reduce _c10d_functional::broadcast _c10d_functional::wait_tensor "
        "_c10d_functional::all_reduce_ _c10d_functional::broadcast_"
    ),
}

# By namespace and name. An in-place variant (`aten::relu_`) has the rule of its operator unless it has one of its own.
RULES: Mapping[str, Rule] = MappingProxyType(
    {f"aten::{name}": rule for rule, names in _ATEN.items() for name in names.split()}
    | {name: rule for rule, names in _DISTRIBUTED.items() for name in names.split()}
)


def rule_finder(rules: Mapping[str, Rule] | None = None) -> Callable[[Call], Rule]:
    """A function that returns the rule for an operator; `rules` take precedence over `RULES`."""
    table = {**RULES, **(rules or {})}

    def find(call: Call) -> Rule:
        name = call.qualified_name
        found = table.get(name) or table.get(name.removesuffix("_"))
        return found or (elementwise.pointwise if _is_pointwise(call.function) else elementwise.unknown)

    return find


@cache
def _is_pointwise(function: Any) -> bool:
    """Whether torch tags an operator, or the one of which it is the in-place variant, as elementwise."""
    packet = function.overloadpacket
    name = packet.__name__
    if torch.Tag.pointwise in function.tags or not name.endswith("_"):
        return torch.Tag.pointwise in function.tags
    found = getattr(getattr(torch.ops, function.namespace), name[:-1], None)
    return found is not None and any(torch.Tag.pointwise in getattr(found, each).tags for each in found.overloads())
