"""Shapes that are known at once.

Tensors without values learn most shapes by working through an operator's decomposition, one small operator after the
other. Skipping that work for convolutions, norms and activations makes tracing a typical network several times faster.
"""

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten


def _convolution(
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    if not source.is_contiguous():
        return NotImplemented
    rows, columns, *kernel = weight.shape
    reads, makes = (rows, columns * groups) if transposed else (columns * groups, rows)
    if source.shape[1] != reads or makes % groups:
        raise RuntimeError(f"a convolution over {reads} channels in {groups} groups got {source.shape[1]} channels")
    _require(bias, (makes,), "convolution to", makes)
    spatial = []
    for size, side, step, pad, gap, extra in zip(
        source.shape[2:], kernel, _each(stride), _each(padding), _each(dilation), _each(output_padding), strict=False
    ):
        reach = gap * (side - 1) + 1
        made = (size - 1) * step + reach + extra - 2 * pad if transposed else (size + 2 * pad - reach) // step + 1
        spatial.append(made)
    if min(spatial) < 1:
        raise RuntimeError(f"a convolution of size {tuple(kernel)} does not fit into {tuple(source.shape[2:])}")
    return source.new_empty([source.shape[0], makes, *spatial])


def _each(sizes: list[int]) -> Iterable[int]:
    """One number for each dimension; a single one stands for all."""
    return sizes if len(sizes) > 1 else repeat(sizes[0])


def _batch_norm(source: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *parameters, training, _, _ = rest
    channels = source.shape[1]
    for parameter in parameters:
        _require(parameter, (channels,), "batch norm", channels)
    statistics = [source.new_empty(channels if training else 0) for _ in range(2)]
    return _like(source), *statistics


def _group_norm(source: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    weight, bias, batch, channels, _, groups, _ = rest
    if channels % groups:
        raise RuntimeError(f"group norm of {channels} channels in {groups} groups")
    for parameter in (weight, bias):
        _require(parameter, (channels,), "group norm", channels)
    return _like(source), *(source.new_empty(batch, groups) for _ in range(2))


def _layer_norm(source: Tensor, shape: list[int], *rest: Any) -> tuple[Tensor, ...]:
    normalised = tuple(source.shape[source.ndim - len(shape) :])
    for size in (shape, *(parameter.shape for parameter in rest[:2] if parameter is not None)):
        if tuple(size) != normalised:
            raise RuntimeError(f"layer norm of {normalised} with {tuple(size)}")
    statistic = source.new_empty([*source.shape[: source.ndim - len(shape)], *[1] * len(shape)])
    return _like(source), statistic, _like(statistic)


def _require(parameter: Tensor | None, shape: tuple[int, ...], what: str, channels: int) -> None:
    if parameter is not None and tuple(parameter.shape) != shape:
        raise RuntimeError(f"{what} of {channels} channels with {tuple(parameter.shape)} parameters")


def _like(source: Tensor) -> Tensor:
    """Another tensor of its shape and layout; that of a contiguous one is had faster."""
    return source.new_empty(source.shape) if source.is_contiguous() else torch.empty_like(source)


def _alike(source: Tensor, *_: Any, **__: Any) -> Tensor:
    return _like(source)


def _in_place(source: Tensor, *_: Any, **__: Any) -> Tensor:
    return source


def _pair(left: Tensor, right: Any, **_: Any) -> Any:
    """Two floating-point operands of one type, of which one has the result's shape."""
    if not isinstance(right, Tensor) or left.dtype != right.dtype or not left.is_floating_point():
        return NotImplemented
    shape = left.shape if left.shape == right.shape else torch.broadcast_shapes(left.shape, right.shape)
    larger = next((side for side in (left, right) if side.shape == shape), None)
    return NotImplemented if larger is None else _like(larger)


_DIRECT: dict[Any, Callable[..., Any]] = {
    _ATEN.convolution.default: _convolution,
    _ATEN.native_batch_norm.default: _batch_norm,
    _ATEN.native_group_norm.default: _group_norm,
    _ATEN.native_layer_norm.default: _layer_norm,
    **{
        getattr(_ATEN, name).default: _alike
        for name in ["relu", "leaky_relu", "gelu", "silu", "elu", "mish", "hardswish", "hardsigmoid", "hardtanh"]
    },
    **{getattr(_ATEN, name).default: _in_place for name in ["leaky_relu_", "silu_", "elu_", "mish_", "hardswish_"]},
    **{getattr(_ATEN, name).Tensor: _pair for name in ["add", "sub", "mul", "div"]},
}


def result(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator returns, at least in shape."""
    direct = _DIRECT.get(func)
    if direct is None:
        return func(*args, **kwargs)
    devices = {str(value.device) for value in args if isinstance(value, Tensor) and value.ndim}
    if len(devices) > 1:
        raise RuntimeError(f"expected all tensors on the same device, got {' and '.join(sorted(devices))}")
    found = direct(*args, **kwargs)
    return func(*args, **kwargs) if found is NotImplemented else found
