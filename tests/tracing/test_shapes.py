"""Shapes found by shortcuts are those that torch computes."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ranp.tracing._shapes import _SHORTCUTS, _broadcast, _shortcut, run_operator

ATEN = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def convolution(source: Tensor, weight: Tensor, bias: Tensor | None = None, **changes: object) -> tuple:
    dims = source.ndim - 2
    how = {"stride": [1], "padding": [0], "dilation": [1], "transposed": False, "output": [0], "groups": 1} | changes
    each = [value * dims if isinstance(value, list) else value for value in how.values()]
    return (ATEN.convolution.default, (source, weight, bias, *each))


def convolution_backward(func: object, args: tuple, mask: list[bool]) -> tuple:
    source, weight, bias, *rest = args
    gradient = ATEN.convolution.default(*args)
    return (ATEN.convolution_backward.default, (gradient, source, weight, list(bias.shape), *rest, mask))


CASES = [
    convolution(meta(2, 4, 9, 9), meta(6, 4, 3, 3), meta(6)),
    convolution(meta(2, 4, 9, 9, 9), meta(6, 2, 3, 3, 3), groups=2, stride=[2], padding=[1], dilation=[2]),
    convolution(meta(2, 4, 9, 9), meta(4, 3, 2, 2), transposed=True, stride=[2], output=[1], groups=2),
    (ATEN.native_batch_norm.default, (meta(2, 4, 5), None, None, None, None, True, 0.1, 1e-5)),
    (ATEN.native_group_norm.default, (meta(2, 4, 5), meta(4), meta(4), 2, 4, 5, 2, 1e-5)),
    (ATEN.native_layer_norm.default, (meta(2, 4, 5), [4, 5], meta(4, 5), None, 1e-5)),
    *((getattr(ATEN, name).default, (meta(2, 3),)) for name in ("gelu", "sigmoid", "hardtanh_", "hardswish_")),
    (ATEN.gelu.default, (meta(2, 3, 4).permute(2, 0, 1),)),
    (ATEN.gelu.default, (meta(1, 4).expand(3, 4),)),
    (ATEN.gelu.default, (meta(4, 8)[:, ::2],)),
    (ATEN.relu.default, (meta(2, 3, dtype=torch.int64),)),
    (ATEN.sigmoid.default, (meta(2, 3, dtype=torch.int64),)),
    (ATEN.add.Tensor, (meta(2, 3), meta(1, 3))),
    (ATEN.add.Tensor, (meta(2, 1), meta(1, 3))),
    (ATEN.mul.Tensor, (meta(2, 3), meta(2, 3, dtype=torch.float64))),
    (ATEN.add.Tensor, (meta(2, 3), meta())),
    (ATEN.mul.Tensor, (meta(), meta(2, 3))),
    (ATEN.mul.Tensor, (meta(), meta())),
    (ATEN.mul.Tensor, (meta(2, 3), meta(dtype=torch.float64))),
    (ATEN.mul.Tensor, (meta(2, 3), meta(dtype=torch.int64))),
    (ATEN.mul.Tensor, (meta(2, 3, dtype=torch.int64), meta())),
    (ATEN.mul.Tensor, (meta(2, 3), 2)),
    (ATEN.mul.Tensor, (meta(2, 3), 2j)),
    (ATEN.sub.Tensor, (meta(3, 2).t(), meta(1, 3))),
    (ATEN.sub.Tensor, (meta(3, 2).t(), 1.5)),
    (ATEN.add.Tensor, (meta(2, 1, 4), meta(1, 3, 1))),
    (ATEN.rsub.Scalar, (meta(2, 3), 1)),
    (ATEN.rsub.Scalar, (meta(2, 3, dtype=torch.int64), 2)),
    (ATEN.masked_fill.Scalar, (meta(2, 3, 3), meta(3, 3, dtype=torch.bool), 0.0)),
    (ATEN.masked_fill.Scalar, (meta(3, 3), meta(2, 3, 3, dtype=torch.bool), 0.0)),
    (ATEN.roll.default, (meta(3, 4, 5).transpose(0, 1), [1], [0])),
    (ATEN.repeat.default, (meta(3, 4).t(), [2, 1, 5])),
    (ATEN.add_.Tensor, (meta(2, 3), meta(1, 3))),
    (ATEN.cat.default, ([meta(2, 3, 4), meta(2, 5, 4)], 1)),
    (ATEN.cat.default, ([meta(2, 3), meta(2, 4), meta(2, 1)], -1)),
    (ATEN.cat.default, ([meta(0), meta(2, 3)], 1)),
    (ATEN.addmm.default, (meta(6), meta(5, 4), meta(4, 6))),
    (ATEN.addmm.default, (meta(1, 6), meta(5, 4), meta(4, 6))),
    (ATEN.mean.dim, (meta(2, 3, 4, 5), [-1, 2])),
    (ATEN.mean.dim, (meta(2, 3, 4, 5), [2, 3], True)),
    (ATEN.mean.dim, (meta(2, 3), None)),
    (ATEN.linalg_vector_norm.default, (meta(2, 3, 4), 2, [-1], True)),
    (ATEN.linalg_vector_norm.default, (meta(2, 3, 4),)),
    (ATEN.clamp.default, (meta(2, 3), 0, 1)),
    (ATEN.clamp.default, (meta(2, 3, dtype=torch.int64), 0, 1.5)),
    (ATEN.clamp_min.default, (meta(2, 3), 1e-3)),
    (ATEN.clamp_max.default, (meta(2, 3), 1e-3)),
    (ATEN.eq.Scalar, (meta(2, 3), 0)),
    (ATEN.lt.Scalar, (meta(3, 2).t(), 0)),
    (ATEN.upsample_nearest3d.default, (meta(1, 2, 3, 3, 3), [6, 6, 7])),
    (ATEN.upsample_trilinear3d.default, (meta(1, 2, 3, 3, 3), [6, 6, 7], True)),
    (ATEN.upsample_bilinear2d.default, (meta(1, 2, 3, 3), [5, 9], False)),
    (ATEN._prelu_kernel.default, (meta(2, 3, 4), meta(1, 3, 1))),
    (ATEN._safe_softmax.default, (meta(2, 3, 4), -1)),
    convolution_backward(*convolution(meta(2, 4, 9, 9), meta(6, 4, 3, 3), meta(6)), [True, True, True]),
    convolution_backward(*convolution(meta(2, 4, 9), meta(4, 3, 2), meta(3), transposed=True), [False, True, False]),
    convolution_backward(
        *convolution(meta(2, 4, 9, 9), meta(4, 3, 2, 2), meta(3), transposed=True), [False, True, True]
    ),
    (
        ATEN.native_batch_norm_backward.default,
        (meta(2, 4, 5), meta(2, 4, 5), meta(4), None, None, meta(4), meta(4), True, 1e-5, [True, True, True]),
    ),
    (
        ATEN.native_batch_norm_backward.default,
        (meta(2, 4, 5), meta(2, 4, 5), None, None, None, meta(4), meta(4), True, 1e-5, [True, False, False]),
    ),
    (
        ATEN.native_group_norm_backward.default,
        (meta(2, 4, 5), meta(2, 4, 5), meta(2, 2), meta(2, 2), meta(4), 2, 4, 5, 2, [True, True, True]),
    ),
    *(
        (getattr(ATEN, f"{name}_backward").default, (meta(2, 3), meta(2, 3), *rest))
        for names, rest in {
            "gelu silu mish hardswish sigmoid tanh hardsigmoid": (),
            "threshold": (0,),
            "leaky_relu": (0.1, False),
            "hardtanh": (0, 1),
        }.items()
        for name in names.split()
    ),
    (ATEN.threshold_backward.default, (meta(2, 3, 4).transpose(1, 2), meta(2, 3, 4).transpose(1, 2), 0)),
    *((getattr(ATEN, f"{name}_like").default, (meta(2, 3, 4).transpose(1, 2),)) for name in ("zeros", "ones", "empty")),
    (ATEN.sqrt.default, (meta(2, 3),)),
]


@pytest.mark.parametrize(("func", "args"), CASES, ids=str)
def test_same_as_torch(func, args) -> None:
    assert _shortcut(func) is not None
    expected, found = func(*args), run_operator(func, args, {})
    several = isinstance(expected, tuple)
    for theirs, ours in zip(expected if several else [expected], found if several else [found], strict=True):
        if theirs is None:
            assert ours is None
            continue
        assert (ours.shape, ours.dtype, ours.device, ours.stride()) == (
            theirs.shape,
            theirs.dtype,
            theirs.device,
            theirs.stride(),
        )


def test_batch_norm_in_eval_mode_keeps_no_statistics_as_on_a_cpu() -> None:
    def run(device: str) -> list[torch.Size]:
        source, four = torch.ones(2, 4, 5, device=device), torch.ones(4, device=device)
        args = (source, four, four, four, four, False, 0.1, 1e-5)
        return [made.shape for made in run_operator(ATEN.native_batch_norm.default, args, {})]

    assert run("meta") == [
        tensor.shape
        for tensor in torch.native_batch_norm(
            torch.ones(2, 4, 5), *[torch.ones(4)] * 4, training=False, momentum=0.1, eps=1e-5
        )
    ]


MISFITS = [
    convolution(meta(2, 5, 9, 9), meta(6, 4, 3, 3)),
    convolution(meta(2, 4, 9, 9), meta(6, 4, 3, 3), meta(5)),
    convolution(meta(2, 4, 2, 2), meta(6, 4, 3, 3)),
    (ATEN.native_batch_norm.default, (meta(2, 4, 5), meta(3), meta(3), meta(3), meta(3), False, 0.1, 1e-5)),
    (ATEN.native_group_norm.default, (meta(2, 5, 5), None, None, 2, 5, 5, 2, 1e-5)),
    (ATEN.native_layer_norm.default, (meta(2, 4, 5), [5], meta(4), None, 1e-5)),
    (ATEN.add.Tensor, (meta(2, 3), meta(2, 4))),
    (ATEN.add_.Tensor, (meta(1, 3), meta(2, 3))),
    (ATEN.cat.default, ([meta(2, 3, 4), meta(2, 5, 5)], 1)),
    (ATEN.addmm.default, (meta(6), meta(5, 3), meta(4, 6))),
    (ATEN.addmm.default, (meta(5), meta(5, 4), meta(4, 6))),
    (ATEN._prelu_kernel.default, (meta(2, 3, 4), meta(1, 5, 1))),
]


@pytest.mark.parametrize(("func", "args"), MISFITS, ids=str)
def test_what_does_not_fit_is_an_error(func, args) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        run_operator(func, args, {})


def _shape_or_none(broadcast: Callable[..., Sequence[int]], *shapes: list[int]) -> tuple[int, ...] | None:
    try:
        return tuple(broadcast(*shapes))
    except RuntimeError:
        return None


SHAPE = st.lists(st.sampled_from([0, 1, 2, 3]), max_size=4)


@given(SHAPE, SHAPE)
def test_broadcast_as_torch_does(left: list[int], right: list[int]) -> None:
    assert _shape_or_none(_broadcast, left, right) == _shape_or_none(torch.broadcast_shapes, left, right)


def test_every_entry_is_tried() -> None:
    alike = {
        name for name, how in _SHORTCUTS.items() if how.__name__ in ("_like_input", "_upsample", "_pair", "_compared")
    }
    assert _SHORTCUTS.keys() - alike <= {func for func, _ in CASES}
