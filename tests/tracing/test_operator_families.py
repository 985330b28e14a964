"""Channels pass through operators that act along other dimensions, or on all elements alike, in 1D, 2D and 3D."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ranp
from helpers.networks import Net
from helpers.oracles import (
    assert_masked_is_pruned,
    counted_macs,
    in_double,
    random_plan,
    randomize,
)
from ranp.graph import ChannelGraph

CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SIDES = (9, 8, 6)
Operator = Callable[[Tensor], Tensor]


def model(operator: Operator, dims: int) -> tuple[nn.Module, Tensor]:
    """Six channels, the operator, and a head for as many channels as it returns."""
    x = torch.randn(2, 3, *SIDES[:dims], generator=torch.Generator().manual_seed(0))
    channels = operator(torch.rand(2, 6, *SIDES[:dims], dtype=torch.float64)).shape[1]

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(operator(net.body(x)).to(x.dtype))

    made = Net(run, body=CONVOLUTION[dims - 1](3, 6, 1), head=CONVOLUTION[dims - 1](channels, 2, 1))
    return randomize(made), in_double(x)


def unprunable(graph: ChannelGraph) -> set[str]:
    return {entry.operator for entry in graph.unprunable} - {"output"}


def assign(*place: Any, value: Any = 0.0) -> Operator:
    """Write into a copy; the value may be a function of the tensor."""

    def run(y: Tensor) -> Tensor:
        z = y.clone()
        z[place] = value(y) if callable(value) else value
        return z

    return run


def mask_where_negative(y: Tensor) -> Tensor:
    z = y.clone()
    z[z < 0] = 0.0
    return z


def in_place(name: str) -> Operator:
    return lambda y: getattr(y.clone(), name)(y.relu())


PLACES = torch.tensor([2, 0])
ALL = slice(None)

# Along the first dimension after the channels, which is there in 1D to 3D.
SPATIAL: dict[str, Operator] = {
    "softmax": lambda y: y.softmax(2),
    "log_softmax": lambda y: y.log_softmax(2),
    "cumsum": lambda y: y.cumsum(2),
    "cumprod": lambda y: y.cumprod(2),
    "cummax": lambda y: y.cummax(2).values,
    "cummin": lambda y: y.cummin(2).values,
    "logcumsumexp": lambda y: y.logcumsumexp(2),
    "logsumexp": lambda y: y.logsumexp(2, keepdim=True),
    "sort": lambda y: y.sort(2).values,
    "topk": lambda y: y.topk(2, 2).values,
    "kthvalue": lambda y: y.kthvalue(2, 2, keepdim=True).values,
    "median": lambda y: y.median(2, keepdim=True).values,
    "aminmax": lambda y: y - y.aminmax(dim=2, keepdim=True).min,
    "nansum": lambda y: y - y.nansum(2, keepdim=True),
    "nanmean": lambda y: y - y.nanmean(2, keepdim=True),
    "count_nonzero": lambda y: y - y.relu().count_nonzero(2).unsqueeze(2),
    "std_mean": lambda y: (y - torch.std_mean(y, dim=2, keepdim=True)[1]) / torch.std_mean(y, dim=2, keepdim=True)[0],
    "quantile": lambda y: torch.quantile(y, 0.3, dim=2, keepdim=True),
    "nanquantile": lambda y: torch.nanquantile(y, 0.3, dim=2, keepdim=True),
    "several quantiles": lambda y: torch.quantile(y, torch.tensor([0.2, 0.7], dtype=y.dtype), dim=2).movedim(0, 2),
    "flip": lambda y: y.flip(2),
    "roll": lambda y: y.roll(1, 2),
    "diff": lambda y: y.diff(dim=2),
    "unfold": lambda y: y.unfold(2, 2, 1).mean(-1),
    "gather": lambda y: y.gather(2, y.argsort(2)),
    "gather of some": lambda y: y.gather(2, y.argsort(2)[:, :, :3]),
    "gather by repeated places": lambda y: y.gather(
        2, PLACES.view(1, 1, 2, *[1] * (y.ndim - 3)).expand(*y.shape[:2], 2, *y.shape[3:])
    ),
    "take_along_dim": lambda y: y.take_along_dim(y.argsort(2), 2),
    "scatter": lambda y: torch.zeros_like(y).scatter(2, y.argsort(2), y),
    "scatter of a number": lambda y: y.scatter(2, y.argmax(2, keepdim=True), 0.5),
    "scatter into zeros": lambda y: torch.zeros(y.shape, dtype=y.dtype).scatter_(2, y.argsort(2), y),
    "scatter_add": lambda y: y.scatter_add(2, y.argsort(2), y),
    "scatter_reduce": lambda y: y.scatter_reduce(2, y.argsort(2), y, "amax"),
    "index_add": lambda y: y.index_add(2, PLACES, y[:, :, 1:3]),
    "index_copy": lambda y: y.index_copy(2, PLACES, y[:, :, 1:3]),
    "index_fill": lambda y: y.index_fill(2, PLACES, 0.5),
    "index_select": lambda y: y.index_select(2, PLACES),
    "index": lambda y: y[:, :, PLACES],
    "index in any order": lambda y: y[:, :, [[2, 0], [1, 1]]].flatten(2, 3),
    "assign": assign(..., 0),
    "assign a slice": assign(ALL, ALL, slice(0, 2), value=0.5),
    "assign places": assign(ALL, ALL, PLACES, value=0.5),
    "assign places of a tensor": assign(ALL, ALL, PLACES, value=lambda y: y[:, :, 1:3]),
    "assign where a mask is true": mask_where_negative,
    "assign where a mask of positions is true": assign(ALL, ALL, torch.arange(SIDES[0]) < 2, value=0.5),
    "bucketize": lambda y: torch.bucketize(y, torch.tensor([-1.0, 0.0, 1.0], dtype=y.dtype)),
    "searchsorted": lambda y: torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0], dtype=y.dtype), y),
    "isin": lambda y: torch.isin(y.round(), torch.tensor([0.0, 1.0], dtype=y.dtype)),
    "rfft": lambda y: torch.fft.irfft(torch.fft.rfft(y, dim=2).conj(), n=y.shape[2], dim=2),
    "parts of complex numbers": lambda y: torch.view_as_real(torch.fft.fft(y, dim=2)).sum(-1),
    "complex": lambda y: torch.view_as_complex(torch.stack([y, y.relu()], -1)).abs() + torch.complex(y, y).real,
    "polar": lambda y: torch.polar(y.exp(), y).imag,
    "view of another dtype": lambda y: y.unsqueeze(2).squeeze(2).flatten(2).view(y.shape),
    "reshaped in place": lambda y: y.clone().unsqueeze_(1).transpose_(1, 2).squeeze_(2),
    "positions": lambda y: y + torch.arange(y.shape[-1]) * torch.hann_window(y.shape[-1]),
    "zeros": lambda y: y + torch.zeros(y.shape) + y.new_full(y.shape[1:], 0.5),
    "repeated mask": lambda y: y * torch.ones(1, 1, *y.shape[2:]).expand(y.shape),
    "floor_divide": lambda y: y.floor_divide(0.3),
    "eq_": in_place("eq_"),
    "copysign_": in_place("copysign_"),
    "lerp": lambda y: torch.lerp(y, y.relu(), y.sigmoid()),
    "addcmul": lambda y: torch.addcmul(y, y, y.relu(), value=0.5),
    "where": lambda y: torch.where(y > 0, y, -0.5),
    "clamp": lambda y: y.clamp(y.mean(2, keepdim=True) - 1, None),
    "instance_norm": F.instance_norm,
    "layer_norm": lambda y: F.layer_norm(y, y.shape[-1:]),
    "rms_norm": lambda y: F.rms_norm(y, y.shape[-1:]),
    "normalize": lambda y: F.normalize(y, dim=2),
    "interpolate": lambda y: F.interpolate(y, scale_factor=2, mode="nearest-exact"),
    "area": lambda y: F.interpolate(y, size=3, mode="area"),
    **{
        f"padding, {mode}": lambda y, mode=mode: F.pad(y, [1] * (2 * (y.ndim - 2)), mode=mode)  # type: ignore[misc]
        for mode in ("constant", "reflect", "replicate", "circular")
    },
}


def by_dims(*kinds: Callable[..., Any], **options: Any) -> dict[int, Operator]:
    """The same operator for each number of dimensions, the last of them for 3D."""
    return {4 - len(kinds) + index: lambda y, kind=kind: kind(y, **options) for index, kind in enumerate(kinds)}  # type: ignore[misc]


POOLS: dict[str, dict[int, Operator]] = {
    "max_pool": by_dims(F.max_pool1d, F.max_pool2d, F.max_pool3d, kernel_size=2),
    "avg_pool": by_dims(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, kernel_size=2),
    "lp_pool": by_dims(F.lp_pool1d, F.lp_pool2d, F.lp_pool3d, norm_type=2, kernel_size=2),
    "adaptive_max_pool": by_dims(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, output_size=2),
    "adaptive_avg_pool": by_dims(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, output_size=2),
}
# In two or three dimensions only.
PLANES: dict[str, Operator] = {
    "tril": torch.tril,
    "triu": lambda y: y.triu(1),
    "rot90": lambda y: y.rot90(1, (2, 3)),
    "diagonal": lambda y: (
        y.diagonal(0, 2, 3)[..., None] if y.ndim == 4 else y.diagonal(0, 2, 3).movedim(-1, 2)[..., None]
    ),
    "two places": lambda y: y[:, :, PLACES, PLACES].unflatten(2, (2, 1)),
    "two places apart": lambda y: y[PLACES.relu() * 0, :, PLACES].unsqueeze(2),
    "assign two places": assign(ALL, ALL, PLACES, PLACES, value=0.5),
    "unfold and fold": lambda y: F.fold(F.unfold(y, 2), y.shape[2:], 2) if y.ndim == 4 else y,
}

TABLE: dict[str, tuple[Operator, int]] = {
    **{f"{name}, {dims}D": (operator, dims) for name, operator in SPATIAL.items() for dims in (1, 2, 3)},
    **{f"{name}, {dims}D": (operator, dims) for name, kinds in POOLS.items() for dims, operator in kinds.items()},
    **{f"{name}, {dims}D": (operator, dims) for name, operator in PLANES.items() for dims in (2, 3)},
}


@pytest.mark.parametrize("name", TABLE)
def test_channels_pass_through(name: str) -> None:
    net, x = model(*TABLE[name])
    graph = ranp.trace(net, x)
    assert ([group.width for group in graph.groups], unprunable(graph)) == ([6], set())
    plan = random_plan(graph, 0, 0.4)
    small = ranp.apply(net, plan)
    assert_masked_is_pruned(net, small, x)
    assert (graph.cost().macs, plan.cost.macs) == (counted_macs(net, x), counted_macs(small, x))
    assert ranp.verify(net, plan, x).status == "exact"


# Draws of fewer channels are others, but verification replaces them by constants.
RANDOM: dict[str, Operator] = {
    "randn": lambda y: y + torch.randn(y.shape),
    "normal": lambda y: y + torch.normal(0.0, 1.0, y.shape),
    "normal of tensors": lambda y: torch.normal(y, y.exp()),
    "bernoulli": lambda y: y * torch.bernoulli(torch.full(y.shape[:2], 0.5)).view(*y.shape[:2], *[1] * (y.ndim - 2)),
    "uniform_": lambda y: y + torch.empty_like(y).uniform_(),
    "exponential_": lambda y: y + torch.empty(y.shape).exponential_(),
    "gumbel_softmax": lambda y: F.gumbel_softmax(y, dim=2, hard=True),
    "dropout": lambda y: F.dropout(y, training=True),
    "dropout of channels": lambda y: F.feature_alpha_dropout(y, training=True),
    "fractional_max_pool2d": lambda y: F.fractional_max_pool2d(y, 2, 3),
    "fractional_max_pool2d, ratio": lambda y: F.fractional_max_pool2d(y, 2, output_ratio=(0.5, 0.5)),
    "fractional_max_pool3d": lambda y: F.fractional_max_pool3d(y[..., None].repeat(1, 1, 1, 1, 8), 2, 3).sum(-1),
}


@pytest.mark.parametrize("name", RANDOM)
def test_channels_pass_through_random_operators(name: str) -> None:
    net, x = model(RANDOM[name], 2)
    graph = ranp.trace(net, x)
    assert ([group.width for group in graph.groups], unprunable(graph)) == ([6], set())
    assert ranp.verify(net, random_plan(graph, 0, 0.4), x).status == "exact"


# What docs/limits.md lists.
MIXING: dict[str, Operator] = {
    "cummax": lambda y: y.cummax(1).values,
    "sort": lambda y: y.sort(1).values,
    "gather": lambda y: y.gather(1, PLACES.view(1, 2, 1, 1).expand(2, 2, 9, 8)),
    "scatter": lambda y: y.scatter(1, PLACES.view(1, 2, 1, 1).expand(2, 2, 9, 8), 0.5),
    "index_add": lambda y: y.index_add(1, PLACES, y[:, 1:3]),
    "index_select": lambda y: y.index_select(1, PLACES),
    "index_put_": assign(ALL, PLACES, value=0.5),
    "tril": lambda y: y.movedim(1, -1).tril().movedim(-1, 1),
    "bucketize": lambda y: torch.bucketize(y, y.mean((0, 2, 3))),
    "avg_pool3d": lambda y: F.local_response_norm(y, 2),
    "view_as_complex": lambda y: torch.view_as_complex(y[:, :2].movedim(1, -1).contiguous()).abs().unsqueeze(1),
    "masked_scatter": lambda y: y.masked_scatter(y > 0, y.exp()),
    "renorm": lambda y: y.renorm(2, 0, 1.0),
    "linalg_inv_ex": lambda y: torch.linalg.inv(y[..., :8, :8] + 9 * torch.eye(8)),
    "_cdist_forward": lambda y: torch.cdist(y, y),
    "mul": lambda y: y * torch.arange(6).view(6, 1, 1),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_channels_keeps_them(name: str) -> None:
    graph = ranp.trace(*model(MIXING[name], 2))
    assert not graph.groups
    assert name in unprunable(graph)
