"""Shortcuts to the shapes of outputs.

torch computes most shapes of tensors without values by decomposing an operator into many small ones. Skipping that for
convolutions, norms, activations and other frequent operators makes tracing a typical network several times faster.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

from ranp.module_utils import DispatchMode, tensors_in

_ATEN = torch.ops.aten


def _convolution(source: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Any:
    if not (source.is_contiguous() and weight.is_contiguous()):
        return NotImplemented
    stride, padding, dilation, transposed, output_padding, groups = rest
    rows, columns, *kernel = weight.shape
    reads, makes = (rows, columns * groups) if transposed else (columns * groups, rows)
    if source.shape[1] != reads or makes % groups:
        raise RuntimeError(f"a convolution over {reads} channels in {groups} groups got {source.shape[1]} channels")
    _require(bias, (makes,), "convolution to", makes)
    spatial = []
    settings = map(_each, (stride, padding, dilation, output_padding))
    for size, side, step, pad, gap, extra in zip(source.shape[2:], kernel, *settings, strict=False):
        reach = gap * (side - 1) + 1
        made = (size - 1) * step + reach + extra - 2 * pad if transposed else (size + 2 * pad - reach) // step + 1
        spatial.append(made)
    if min(spatial) < 1:
        raise RuntimeError(f"a convolution of size {tuple(kernel)} does not fit into {tuple(source.shape[2:])}")
    return _empty(source, [source.shape[0], makes, *spatial])


def _each(sizes: list[int]) -> Iterable[int]:
    """One number per dimension; a single one applies to all."""
    return sizes if len(sizes) > 1 else repeat(sizes[0])


def _batch_norm(source: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *parameters, training, _, _ = rest
    channels = source.shape[1]
    for parameter in parameters:
        _require(parameter, (channels,), "batch norm", channels)
    statistics = [_empty(source, [channels if training else 0]) for _ in range(2)]
    return _like(source), *statistics


def _group_norm(source: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    weight, bias, batch, channels, _, groups, _ = rest
    if channels % groups:
        raise RuntimeError(f"group norm of {channels} channels in {groups} groups")
    for parameter in (weight, bias):
        _require(parameter, (channels,), "group norm", channels)
    return _like(source), *(_empty(source, [batch, groups]) for _ in range(2))


def _layer_norm(source: Tensor, shape: list[int], *rest: Any) -> tuple[Tensor, ...]:
    normalized = tuple(source.shape[source.ndim - len(shape) :])
    for size in (shape, *(parameter.shape for parameter in rest[:2] if parameter is not None)):
        if tuple(size) != normalized:
            raise RuntimeError(f"layer norm of {normalized} with {tuple(size)}")
    statistic = _empty(source, [*source.shape[: source.ndim - len(shape)], *[1] * len(shape)])
    return _like(source), statistic, _like(statistic)


def _convolution_backward(gradient: Tensor, source: Tensor, weight: Tensor, bias: Any, *rest: Any) -> Any:
    if not (gradient.is_contiguous() and source.is_contiguous() and weight.is_contiguous()):
        return NotImplemented
    shapes = source.shape, weight.shape, bias
    return tuple(_empty(source, shape) if wanted else None for shape, wanted in zip(shapes, rest[-1], strict=True))


def _norm_backward(gradient: Tensor, source: Tensor, weight: Tensor | None, mask: list[bool]) -> Any:
    if not (gradient.is_contiguous() and source.is_contiguous()):
        return NotImplemented
    channels = source.shape[1:2]
    scales = (_empty(source if weight is None else weight, channels) if wanted else None for wanted in mask[1:])
    return _like(source) if mask[0] else None, *scales


def _require(parameter: Tensor | None, shape: tuple[int, ...], what: str, channels: int) -> None:
    if parameter is not None and tuple(parameter.shape) != shape:
        raise RuntimeError(f"{what} of {channels} channels with {tuple(parameter.shape)} parameters")


def _empty(source: Tensor, shape: Sequence[int]) -> Tensor:
    """A contiguous tensor of the same dtype and device; faster than `new_empty`, which is decomposed too."""
    return torch.empty(shape, dtype=source.dtype, device=source.device)


def _like(source: Tensor) -> Tensor:
    """A new tensor of the same shape and layout; `empty_like`, which is decomposed too, takes twelve times as long."""
    if source.is_contiguous():
        return _empty(source, source.shape)
    if _ATEN.is_non_overlapping_and_dense.default(source):
        return torch.empty_strided(source.shape, source.stride(), dtype=source.dtype, device=source.device)
    return torch.empty_like(source)


def _broadcast(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """The common shape of two tensors; `torch.broadcast_shapes` takes thirty times as long."""
    longer, shorter = (left, right) if len(left) > len(right) else (right, left)
    sizes = list(longer)
    for place, size in enumerate(shorter, len(longer) - len(shorter)):
        if sizes[place] == 1:
            sizes[place] = size
        elif size not in (1, sizes[place]):
            raise RuntimeError(f"shapes {tuple(left)} and {tuple(right)} do not fit")
    return tuple(sizes)


def _like_input(source: Tensor, *_: Any, **__: Any) -> Any:
    return _like(source) if source.is_floating_point() else NotImplemented


def _written(target: Tensor, *others: Any, **_: Any) -> Any:
    """The target of an in-place elementwise operator, whose other inputs have to fit."""
    if getattr(target, "constant", None) is not None:  # Fake mode knows its value, which changes now.
        return NotImplemented
    shapes = [other.shape for other in others if isinstance(other, Tensor) and other.shape != target.shape]
    return NotImplemented if any(_broadcast(target.shape, shape) != target.shape for shape in shapes) else target


def _pair(left: Tensor, right: Any, **_: Any) -> Any:
    """Floating-point operands of one type; numbers and tensors without dimensions do not count."""
    if isinstance(right, complex) or any(
        isinstance(side, Tensor) and not side.is_floating_point() for side in (left, right)
    ):
        return NotImplemented
    sides = [side for side in (left, right) if isinstance(side, Tensor) and side.ndim]
    if len(sides) == 1:
        return _like(sides[0])
    if not sides or left.dtype != right.dtype:
        return NotImplemented
    shape = left.shape if left.shape == right.shape else _broadcast(left.shape, right.shape)
    if left.is_contiguous() and right.is_contiguous():
        return _empty(left, shape)
    larger = next((side for side in sides if side.shape == shape), None)
    return NotImplemented if larger is None else _like(larger)


def _like_first(source: Tensor, other: Tensor, *_: Any) -> Any:
    """The second input is broadcast to the shape of the first."""
    return _like(source) if _broadcast(source.shape, other.shape) == source.shape else NotImplemented


def _repeat(source: Tensor, times: list[int]) -> Any:
    shape = [1] * (len(times) - source.ndim) + list(source.shape)
    return _empty(source, [size * count for size, count in zip(shape, times, strict=True)])


def _cat(tensors: list[Tensor], dim: int = 0) -> Any:
    first, *others = tensors
    dim %= max(first.ndim, 1)
    shape = list(first.shape)
    for other in others:
        if (other.ndim, other.dtype, other.device) != (len(shape), first.dtype, first.device):
            return NotImplemented
        if any(a != b for i, (a, b) in enumerate(zip(shape, other.shape, strict=True)) if i != dim):
            return NotImplemented
        shape[dim] += other.shape[dim]
    return _empty(first, shape) if first.is_contiguous() else NotImplemented


def _addmm(bias: Tensor, left: Tensor, right: Tensor, **_: Any) -> Any:
    fits = left.shape[1] == right.shape[0] and bias.shape == right.shape[1:] and bias.dtype == left.dtype == right.dtype
    return _empty(left, (left.shape[0], right.shape[1])) if fits else NotImplemented


def _mean(source: Tensor, dims: list[int] | None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if not dims or dtype is not None or not source.is_floating_point():
        return NotImplemented
    gone = {dim % source.ndim for dim in dims}
    kept = [1 if dim in gone else size for dim, size in enumerate(source.shape) if keepdim or dim not in gone]
    return _empty(source, kept)


def _clamped(source: Tensor, *bounds: Any) -> Any:
    return NotImplemented if any(isinstance(bound, Tensor) for bound in bounds) else _like_input(source)


def _compared(source: Tensor, _: Any) -> Any:
    if not source.is_contiguous():
        return NotImplemented
    return torch.empty(source.shape, dtype=torch.bool, device=source.device)


def _new_like(source: Tensor, **options: Any) -> Any:
    usual = all(value is None or value == torch.preserve_format for value in options.values())
    return _like(source) if usual else NotImplemented


def _upsample(source: Tensor, size: list[int], *_: Any, **__: Any) -> Any:
    return _empty(source, [*source.shape[:2], *size]) if source.is_contiguous() else NotImplemented


_ACTIVATIONS = "relu leaky_relu elu gelu silu mish hardswish sigmoid tanh hardsigmoid hardtanh"
_DERIVED = "threshold leaky_relu gelu silu mish hardswish sigmoid tanh hardsigmoid hardtanh"
_UPSAMPLES = (
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"
)

_SHORTCUTS: dict[Any, Callable[..., Any]] = {
    _ATEN.convolution.default: _convolution,
    _ATEN.native_batch_norm.default: _batch_norm,
    _ATEN.native_group_norm.default: _group_norm,
    _ATEN.native_layer_norm.default: _layer_norm,
    _ATEN.convolution_backward.default: _convolution_backward,
    _ATEN.native_batch_norm_backward.default: lambda grad, x, *more: _norm_backward(grad, x, more[0], more[-1]),
    _ATEN.native_group_norm_backward.default: lambda grad, x, *more: _norm_backward(grad, x, more[2], more[-1]),
    _ATEN.cat.default: _cat,
    **{getattr(_ATEN, f"{name}_backward").default: lambda *args, **_: _pair(*args[:2]) for name in _DERIVED.split()},
    **{getattr(_ATEN, f"{name}_like").default: _new_like for name in ["zeros", "ones", "empty"]},
    _ATEN.sqrt.default: _like_input,
    **{getattr(_ATEN, name).default: _like_input for name in _ACTIVATIONS.split()},
    **{getattr(_ATEN, name).Tensor: _pair for name in ["add", "sub", "mul", "div"]},
    **{getattr(_ATEN, name).default: _upsample for name in _UPSAMPLES.split()},
    _ATEN.rsub.Scalar: _pair,
    _ATEN.masked_fill.Scalar: _like_first,
    _ATEN.roll.default: lambda source, *_: _empty(source, source.shape),
    _ATEN.repeat.default: _repeat,
    _ATEN._safe_softmax.default: lambda source, dim, dtype=None: NotImplemented if dtype else _like_input(source),
    _ATEN._prelu_kernel.default: _like_first,
    _ATEN.addmm.default: _addmm,
    _ATEN.mean.dim: _mean,
    _ATEN.linalg_vector_norm.default: lambda source, order=2, dims=None, *rest, **more: _mean(
        source, dims, *rest, **more
    ),
    **{getattr(_ATEN, name).default: _clamped for name in ["clamp", "clamp_min", "clamp_max"]},
    **{getattr(_ATEN, name).Scalar: _compared for name in ["eq", "ne", "lt", "le", "gt", "ge"]},
}


@cache
def _shortcut(func: Any) -> Callable[..., Any] | None:
    name = func.overloadpacket.__name__
    if name.endswith("_") and (name[:-1] in _ACTIVATIONS.split() or torch.Tag.pointwise in func.tags):
        return _written
    return _SHORTCUTS.get(func)


_FUSED = "efficient_attention flash_attention flash_attention_for_cpu cudnn_attention fused_attention_overrideable"
FUSED_ATTENTION = {
    getattr(_ATEN, f"_scaled_dot_product_{name}").default
    for name in _FUSED.split()
    if hasattr(_ATEN, f"_scaled_dot_product_{name}")
}


def attention(func: Any, args: Any, kwargs: Any) -> Tensor:
    """The result of a fused operator by matrix products and a softmax, which torch also uses on meta tensors."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    query, key, value = (given[name] for name in ("query", "key", "value"))
    out: Tensor = _ATEN._scaled_dot_product_attention_math.default(
        *(query, key, value, given.get("attn_mask", given.get("attn_bias"))),
        dropout_p=given.get("dropout_p", 0.0),
        is_causal=given.get("is_causal", False),
        scale=given.get("scale"),
        enable_gqa=query.shape[-3] != key.shape[-3],
    )[0]
    return out


class Decomposition(DispatchMode):
    """Decomposes composite operators, which torch does only above the level at which a mode runs operators."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, out = kwargs or {}, NotImplemented
        if func.namespace != "prim":
            with self:
                out = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if out is NotImplemented else out


_DEPENDS_ON_DATA = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def run_operator(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator on tensors without values."""
    shortcut = _shortcut(func)
    if shortcut is None:
        return _run(func, args, kwargs)
    devices = {value.device for value in args if isinstance(value, Tensor) and value.ndim}
    if len(devices) > 1:
        raise RuntimeError(f"expected all tensors on the same device, got {' and '.join(sorted(map(str, devices)))}")
    found = shortcut(*args, **kwargs)
    return _run(func, args, kwargs) if found is NotImplemented else found


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    first = args[0] if args else None
    if isinstance(first, (list, tuple)) and first:
        first = first[0]
    if (
        isinstance(first, FakeTensor)
        and not (func._schema.is_mutable or _DEPENDS_ON_DATA.intersection(func.tags))
        and all(isinstance(tensor, FakeTensor) for tensor in tensors_in((args, kwargs)))
    ):
        # Inputs that do not fit raise their error here; fake mode would also log it, with a traceback.
        with in_kernel_invocation_manager(first.fake_mode), suppress(NotImplementedError):
            func(*args, **kwargs)
    return func(*args, **kwargs)
