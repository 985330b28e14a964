"""Layers one after another, with norms and activations between them."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks._case import Net, case, image

# -- chains ------------------------------------------------------------------------------------------------------------


@case(first=6, second=4)
def plain() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.norm(net.first(x)).relu()
        return net.head(F.max_pool2d(F.gelu(net.second(y)), 2))

    return Net(
        run,
        first=nn.Conv2d(3, 6, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(6),
        second=nn.Conv2d(6, 4, 3, stride=2, padding=1),
        head=nn.Conv2d(4, 2, 1),
    )


@case(image(3, 2, 11), first=6, second=4)
def one_dimension() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.avg_pool1d(net.norm(net.first(x)).relu(), 2)
        y = F.interpolate(net.second(y), size=9, mode="linear")
        return net.head(F.max_pool1d(y, 3))

    return Net(
        run,
        first=nn.Conv1d(2, 6, 3),
        norm=nn.BatchNorm1d(6),
        second=nn.ConvTranspose1d(6, 4, 3),
        head=nn.Conv1d(4, 3, 1),
    )


@case(image(2, 1, 7, 6, 5), first=5, second=3)
def three_dimensions() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.avg_pool3d(net.norm(net.first(x)).sigmoid(), 2, ceil_mode=True)
        y = F.interpolate(net.second(y), scale_factor=2, mode="trilinear")
        return net.head(F.max_pool3d(y, 2))

    return Net(
        run,
        first=nn.Conv3d(1, 5, 3, padding=1),
        norm=nn.BatchNorm3d(5, affine=False),
        second=nn.Conv3d(5, 3, (1, 3, 1), dilation=1),
        head=nn.Conv3d(3, 2, 1),
    )


@case(image(4, 5), first=7, second=6)
def perceptron() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(F.softplus(net.second(net.norm(net.first(x)).tanh())))

    return Net(
        run, first=nn.Linear(5, 7), norm=nn.BatchNorm1d(7), second=nn.Linear(7, 6, bias=False), head=nn.Linear(6, 2)
    )


@case(image(2, 4, 5), first=6)
def linear_on_sequences() -> nn.Module:
    return Net(lambda net, x: net.head(net.first(x).relu()), first=nn.Linear(5, 6), head=nn.Linear(6, 3))


# -- norms and activations ---------------------------------------------------------------------------------------------


def _with(norm: nn.Module, width: int) -> nn.Module:
    return Net(
        lambda net, x: net.head(net.norm(net.body(x)).relu()),
        body=nn.Conv2d(3, width, 3),
        norm=norm,
        head=nn.Conv2d(width, 2, 1),
    )


@case(body=5)
def batch_norm_without_statistics() -> nn.Module:
    return _with(nn.BatchNorm2d(5, track_running_stats=False), 5)


@case(image(3, 3, 5, 5), body=5)
def instance_norm() -> nn.Module:
    return _with(nn.InstanceNorm2d(5), 5)


@case(image(3, 3, 5, 5), body=5)
def instance_norm_affine() -> nn.Module:
    return _with(nn.InstanceNorm2d(5, affine=True), 5)


@case(image(3, 3, 5, 5), body=5)
def instance_norm_with_statistics() -> nn.Module:
    return _with(nn.InstanceNorm2d(5, affine=True, track_running_stats=True), 5)


@case(body=6)
def group_norm_of_many_blocks() -> nn.Module:
    return _with(nn.GroupNorm(6, 12), 12)


@case(body=5)
def group_norm_of_single_channels() -> nn.Module:
    return _with(nn.GroupNorm(5, 5, affine=False), 5)


@case(body=5)
def prelu_shared() -> nn.Module:
    return _with(nn.PReLU(), 5)


@case(body=5)
def prelu_per_channel() -> nn.Module:
    return _with(nn.PReLU(5), 5)


@case(left=4, right=5)
def prelu_shared_between_widths() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.act(net.right(net.act(net.left(x)))))

    return Net(run, left=nn.Conv2d(3, 4, 3), right=nn.Conv2d(4, 5, 3), act=nn.PReLU(), head=nn.Conv2d(5, 2, 1))


@case(body=4, second=5)
def padding_modes() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.second(net.body(x).relu()).relu()),
        body=nn.Conv2d(3, 4, 3, padding=1),
        second=nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"),
        head=nn.Conv2d(5, 2, 3, padding=1, padding_mode="replicate"),
    )


@case(first=6, second=4)
def activations_in_place_or_not() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 6, 1),
            hardswish=nn.Hardswish(inplace=True),
            mish=nn.Mish(inplace=True),
            gelu=nn.GELU(),
            silu=nn.SiLU(inplace=True),
            threshold=nn.Threshold(0.1, 0.0, inplace=True),
            second=nn.Conv2d(6, 8, 1),
            glu=nn.GLU(dim=1),
            elu=nn.ELU(inplace=True),
            head=nn.Conv2d(4, 2, 1),
        )
    )


@case(image(2, 3, 6, 6), body=5)
def channels_last() -> nn.Module:
    # Pooling then returns another memory layout.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x.contiguous(memory_format=torch.channels_last))
        return net.head(F.adaptive_avg_pool2d(y, 1).flatten(1))

    return Net(run, body=nn.Conv2d(3, 5, 3), head=nn.Linear(5, 2))
