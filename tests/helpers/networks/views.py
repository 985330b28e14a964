"""Reshapes, splits and shuffles of channels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks._case import Net, case, image


@case(body=6, hidden=4)
def linear_after_global_pooling() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.hidden(F.adaptive_avg_pool2d(net.body(x).relu(), 1).flatten(1)).relu()),
        body=nn.Conv2d(3, 6, 3),
        hidden=nn.Linear(6, 4),
        head=nn.Linear(4, 2),
    )


@case(image(2, 3, 5, 5), body=4, hidden=6)
def linear_after_flatten() -> nn.Module:
    # 3 x 3 positions of every channel are features of the linear layer.
    return Net(
        lambda net, x: net.head(net.hidden(net.body(x).relu().flatten(1)).relu()),
        body=nn.Conv2d(3, 4, 3),
        hidden=nn.Linear(36, 6),
        head=nn.Linear(6, 2),
    )


@case(image(3, 5), hidden=4, body=3)
def convolution_after_unflatten() -> nn.Module:
    # 2 x 2 features of the linear layer make one channel.
    return Net(
        lambda net, x: net.head(net.body(net.hidden(x).view(len(x), -1, 2, 2)).relu()),
        hidden=nn.Linear(5, 16),
        body=nn.Conv2d(4, 3, 1),
        head=nn.Conv2d(3, 2, 1),
    )


@case(body=4)
def gated_halves() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        value, gate = net.body(x).chunk(2, dim=1)
        return net.head(value * gate.sigmoid())

    return Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(4, 2, 1))


@case(body=4, left=3)
def split_halves() -> nn.Module:
    # A forward that splits in halves still can: the same positions of both go.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        half = y.shape[1] // 2
        left, right = y[:, :half], y[:, half:]
        return net.head(torch.cat([net.left(left).relu(), right], 1))

    return Net(run, body=nn.Conv2d(3, 8, 3), left=nn.Conv2d(4, 3, 1), head=nn.Conv2d(7, 2, 1))


@case(left=4, right=4, unprunable={"slice": "with fewer channels"})
def split_at_a_number() -> nn.Module:
    # The forward counts on three channels before the cut.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        return net.head(torch.cat([net.left(y[:, :3]).relu(), net.right(y[:, 3:])], 1))

    return Net(
        run,
        body=nn.Conv2d(3, 8, 3),
        left=nn.Conv2d(3, 4, 1),
        right=nn.Conv2d(5, 4, 1),
        head=nn.Conv2d(8, 2, 1),
    )


def _shuffle(x: Tensor, blocks: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, blocks, c // blocks, h, w).transpose(1, 2).reshape(n, c, h, w)


@case(body=4)
def channel_shuffle() -> nn.Module:
    return Net(
        lambda net, x: net.head(_shuffle(net.body(x).relu(), 2)), body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1)
    )


@case(first=3, second=6)
def channel_shuffle_between_grouped() -> nn.Module:
    # The shuffle interleaves the blocks that the grouped convolution behind it keeps apart: four channels at a time.
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.second(_shuffle(net.first(x).relu(), 2)).relu())

    return Net(
        run,
        first=nn.Conv2d(3, 12, 3),
        second=nn.Conv2d(12, 12, 1, groups=2),
        head=nn.Conv2d(12, 2, 1),
    )


@case(body=3)
def pixel_shuffle_by_hand() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        n, c, h, w = y.shape
        return net.head(y.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w))

    return Net(run, body=nn.Conv2d(3, 12, 3), head=nn.Conv2d(3, 2, 1))


@case(body=3)
def pixel_shuffle_by_hand_and_pooling() -> nn.Module:
    # The pooling mixes positions that were channels of one block, which go together.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        n, c, h, w = y.shape
        y = y.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)
        return net.head(F.avg_pool2d(y, 2, 1))

    return Net(run, body=nn.Conv2d(3, 12, 3), head=nn.Conv2d(3, 2, 1))


@case(before=4, after=5, unprunable={"view": "fails with fewer channels (shape"})
def reshape_by_number() -> nn.Module:
    # The forward relies on the width 6: `fixed` is unprunable, the others are not.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.fixed(net.before(x).relu())
        y = y.reshape(2, 6, 49).reshape(2, 6, 7, 7)
        return net.head(net.after(y).relu())

    return Net(
        run,
        before=nn.Conv2d(3, 4, 1),
        fixed=nn.Conv2d(4, 6, 3, padding=1),
        after=nn.Conv2d(6, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(body=6)
def channels_last() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.gelu(net.body(x).permute(0, 2, 3, 1))
        return net.head(y).permute(0, 3, 1, 2)

    return Net(run, body=nn.Conv2d(3, 6, 3), head=nn.Linear(6, 2))
