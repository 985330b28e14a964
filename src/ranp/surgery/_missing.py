"""Operators on tensors in which NaN means missing, as in statistics with missing values.

Sums skip missing terms, norms and other statistics count what is there, and a result is missing if nothing enters it.
All other operators work as they are: elementwise ones pass NaN on, and views move it. So what is removed from a model
has to be marked in its parameters only; every operator then computes what it does without that.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ranp.module_utils import DispatchMode, tensors_in

# Runs an operator (the first argument) on positional and keyword arguments.
_Handler: TypeAlias = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class SkipMissing(DispatchMode):
    """Has all operators skip what is missing.

    Attributes:
        custom: Operators of other packages that got tensors in which something is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.custom: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        handler = _handler(func)
        if func.namespace != "aten" and any(tensor.isnan().any() for tensor in tensors_in((args, kwargs))):
            self.custom.add(f"{func.namespace}::{func.overloadpacket.__name__}")
        return func(*args, **kwargs) if handler is None else handler(func, args, kwargs)


@cache
def _handler(func: Any) -> _Handler | None:
    """What runs an operator that combines elements; None for all others."""
    name = func.overloadpacket.__name__
    if func.namespace != "aten":
        return None
    return _HANDLERS.get(name) or (_reduction if _is_reduction(func) else None)


# -- contractions ------------------------------------------------------------------------------------------------------


def _convolution(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An output channel is missing if all its products of a channel and a kernel are."""
    source, weight, transposed, groups = args[0], args[1], args[6], args[8]
    out = func(_filled(source), _filled(weight), *args[2:], **kwargs)
    channels = ~source.isnan().transpose(0, 1).flatten(1).all(1)
    kernels = ~weight.isnan().flatten(2).all(2)
    table = kernels.unflatten(0, (groups, -1))
    table = (table if transposed else table.mT) & channels.reshape(groups, -1, 1)
    missing = ~table.any(1).flatten()
    return out.masked_fill_(missing.reshape(-1, *(1,) * (out.ndim - 2)), math.nan)


def _product(left: int, right: int, *, transposed: bool = False) -> _Handler:
    """A matrix product of two of the arguments: a row or a column is missing if all its entries are."""

    def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = [_filled(value) if place in (left, right) else value for place, value in enumerate(args)]
        rows = args[left].isnan().all(-1, keepdim=args[right].ndim > 1)
        columns = args[right].mT if transposed else args[right]
        missing = rows | columns.isnan().all(-2, keepdim=True) if columns.ndim > 1 else rows
        return func(*given, **kwargs).masked_fill_(missing, math.nan)

    return run


def _triple_product(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Sums of products of three tensors: missing if all products are."""
    present = func(*((~tensor.isnan()).to(tensor.dtype) for tensor in args[:3]), *args[3:], **kwargs)
    return func(*map(_filled, args[:3]), *args[3:], **kwargs).masked_fill_(present == 0, math.nan)


def _attention(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Scaled dot-product attention: features of the queries and keys are summed over, those of the values are not."""
    out = func(*map(_filled, args[:3]), *args[3:], **kwargs)
    result = out if isinstance(out, Tensor) else out[0]
    missing = args[2].isnan().all(-2, keepdim=True)
    heads = result.shape[-3] // missing.shape[-3]  # of queries, for one of keys and values
    result.masked_fill_(missing.repeat_interleave(heads, -3), math.nan)
    return out


def _recurrent(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Recurrent layers as one operator: inputs may be missing, states never are."""
    return func(*tree_map_only(Tensor, _filled, args), **tree_map_only(Tensor, _filled, kwargs))


def _padded(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Padding with a constant: what is missing at all places is missing where these are added, too."""
    source, amounts = args[:2]
    dims = sorted({source.ndim - 1 - place // 2 for place, amount in enumerate(amounts) if amount})
    out = func(*args, **kwargs)
    if dims and out.is_floating_point():
        out.masked_fill_(source.isnan().all(dims, keepdim=True), math.nan)
    return out


def _filled(tensor: Tensor) -> Tensor:
    return tensor.nan_to_num(0.0, math.inf, -math.inf) if tensor.is_floating_point() else tensor


# -- statistics --------------------------------------------------------------------------------------------------------


def _reduction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A mean, maximum, norm, ... of what is there; its result is missing where nothing is."""
    source = args[0]
    if not source.isnan().any():
        return func(*args, **kwargs)
    dims = _reduced_dims(func, args, kwargs)
    present, small = ~source.isnan(), source
    kept = []
    for dim in range(source.ndim):
        kept.append(present.transpose(0, dim).flatten(1).any(1).nonzero().flatten())
        small = small.index_select(dim, kept[-1])
    found, full = func(small, *args[1:], **kwargs), func(*args, **kwargs)
    for part, out in zip(tensors_in(found), tensors_in(full), strict=True):
        left = [index for dim, index in enumerate(kept) if dim not in dims]
        if out.ndim == source.ndim:
            left = [index[:1] * 0 if dim in dims else index for dim, index in enumerate(kept)]
        out.fill_(math.nan if out.is_floating_point() else 0)
        out[torch.meshgrid(*left, indexing="ij") if left else ...] = part
    return full


def _reduced_dims(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[int]:
    """The dimensions that an operator reduces: all where none are given."""
    rank = args[0].ndim
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == "dim":
            given = args[place] if place < len(args) else kwargs.get("dim", argument.default_value)
            dims = [given] if isinstance(given, int) else given
            return {dim % rank for dim in dims or range(rank)}
    return set(range(rank))


@cache
def _is_reduction(func: Any) -> bool:
    """Whether an operator has a variant that reduces dimensions and may keep them at size 1."""
    arguments = func._schema.arguments
    packet = func.overloadpacket
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    tensors = [argument for argument in arguments if isinstance(argument.type, torch.TensorType)]
    return len(tensors) == 1 and any(entry.name == "keepdim" for schema in schemas for entry in schema.arguments)


def _moments(tensor: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance of what is there along some dimensions, which are kept at size 1."""
    mean = tensor.nanmean(dims, keepdim=True)
    return mean, (tensor - mean).square().nanmean(dims, keepdim=True)


def _group_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source, scale, shift, _, _, _, groups, eps = args
    blocks = source.unflatten(1, (groups, -1)).flatten(2)
    mean, variance = _moments(blocks, [2])
    rate = (variance + eps).rsqrt()
    out = ((blocks - mean) * rate).reshape(source.shape)
    return _affine(out, *(_along_channels(given, source.ndim) for given in (scale, shift))), mean[..., 0], rate[..., 0]


def _layer_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source, shape, scale, shift, eps = args
    mean, variance = _moments(source, list(range(source.ndim - len(shape), source.ndim)))
    rate = (variance + eps).rsqrt()
    return _affine((source - mean) * rate, scale, shift), mean, rate


def _rms_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    source, shape, scale, eps = args
    power = source.square().nanmean(list(range(source.ndim - len(shape), source.ndim)), keepdim=True)
    rate = (power + (torch.finfo(source.dtype).eps if eps is None else eps)).rsqrt()
    return _affine(source * rate, scale, None), rate


def _batch_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Matters where a weight is standardized: of activations, a channel is missing as a whole."""
    source, scale, shift, running_mean, _, training, _, eps = args
    missing = source.isnan().transpose(0, 1).flatten(1)
    if not training or running_mean is not None or not (missing.any(1) & ~missing.all(1)).any():
        return func(*args, **kwargs)
    mean, variance = _moments(source, [dim for dim in range(source.ndim) if dim != 1])
    rate = (variance + eps).rsqrt()
    out = _affine((source - mean) * rate, *(_along_channels(given, source.ndim) for given in (scale, shift)))
    return (out, mean.flatten(), rate.flatten(), *func(*args, **kwargs)[3:])


def _weight_norm(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    direction, magnitude, dim = (*args, 0)[:3]
    dims = [other for other in range(direction.ndim) if other != dim % direction.ndim]
    norm = direction.square().nansum(dims, keepdim=True).sqrt()
    return direction * (magnitude / norm), norm


def _affine(tensor: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    scaled = tensor if scale is None else tensor * scale
    return scaled if shift is None else scaled + shift


def _along_channels(tensor: Tensor | None, rank: int) -> Tensor | None:
    return None if tensor is None else tensor.reshape(-1, *(1,) * (rank - 2))


# By the name of an operator of `aten`.
_HANDLERS: dict[str, _Handler] = {
    "constant_pad_nd": _padded,
    "convolution": _convolution,
    **dict.fromkeys(("mm", "bmm", "mv"), _product(0, 1)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _product(1, 2)),
    "linear": _product(0, 1, transposed=True),
    "_trilinear": _triple_product,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
    **dict.fromkeys(("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"), _recurrent),
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _rms_norm,
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"), _batch_norm),
    "_weight_norm_interface": _weight_norm,
}
