"""Sums, products and concatenations of branches."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks._case import Net, case, image

# -- sums --------------------------------------------------------------------------------------------------------------


@case(stem=6, inner=5)
def residual() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.stem(x).relu()
        return net.head((net.outer(net.inner(y).relu()) + y).relu())

    return Net(
        run,
        stem=nn.Conv2d(3, 6, 3, padding=1),
        inner=nn.Conv2d(6, 5, 3, padding=1),
        outer=nn.Conv2d(5, 6, 3, padding=1),
        head=nn.Conv2d(6, 2, 1),
    )


@case(stem=4, inner=5, outer=6)
def residual_with_projection() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.stem(x).relu()
        branch = net.norm(net.outer(net.inner(y).relu()))
        branch += net.project(y)
        return net.head(branch.relu_())

    return Net(
        run,
        stem=nn.Conv2d(3, 4, 3, padding=1),
        inner=nn.Conv2d(4, 5, 3, stride=2, padding=1),
        outer=nn.Conv2d(5, 6, 3, padding=1),
        norm=nn.BatchNorm2d(6),
        project=nn.Conv2d(4, 6, 1, stride=2, bias=False),
        head=nn.Conv2d(6, 2, 1),
    )


@case(stem=4, widen=4, unprunable={"constant_pad_nd": "is padding"})
def residual_with_padded_shortcut() -> nn.Module:
    # ResNet's shortcut A: half the new channels on either side are zeros and stay; the middle ones follow the stem.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.stem(x).relu()
        short = F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return net.head((net.outer(net.widen(y).relu()) + short).relu())

    return Net(
        run,
        stem=nn.Conv2d(3, 4, 3, padding=1),
        widen=nn.Conv2d(4, 4, 3, stride=2, padding=1),
        outer=nn.Conv2d(4, 8, 3, padding=1),
        head=nn.Conv2d(8, 2, 1),
    )


@case(inner=5, unprunable={"repeat": "returns"})
def residual_on_repeated_input() -> nn.Module:
    # V-Net adds its single-channel input, repeated, to its first convolution.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.stem(x) + x[:, :1].repeat(1, 4, 1, 1)
        return net.head(net.inner(y).relu())

    return Net(run, stem=nn.Conv2d(3, 4, 1), inner=nn.Conv2d(4, 5, 3), head=nn.Conv2d(5, 2, 1))


@case(body=6, squeeze=3)
def squeeze_and_excite() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        gate = net.excite(net.squeeze(y.mean((2, 3))).relu()).sigmoid()
        return net.head(y * gate[:, :, None, None])

    return Net(
        run,
        body=nn.Conv2d(3, 6, 3),
        squeeze=nn.Linear(6, 3),
        excite=nn.Linear(3, 6),
        head=nn.Conv2d(6, 2, 1),
    )


@case(body=5)
def layer_scale() -> nn.Module:
    scale = nn.Parameter(torch.ones(5, 1, 1))
    return Net(
        lambda net, x: net.head(net.body(x) * net.scale + net.shift[None, :, None, None]),
        body=nn.Conv2d(3, 5, 3),
        scale=scale,
        shift=nn.Parameter(torch.zeros(5)),
        head=nn.Conv2d(5, 2, 1),
    )


# -- concatenations ----------------------------------------------------------------------------------------------------


@case(left=4, right=5, merge=3)
def concatenation() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = torch.cat([net.left(x).relu(), net.right(x)], 1)
        return net.head(net.merge(net.norm(y)))

    return Net(
        run,
        left=nn.Conv2d(3, 4, 3, padding=1),
        right=nn.Conv2d(3, 5, 1),
        norm=nn.BatchNorm2d(9),
        merge=nn.Conv2d(9, 3, 3),
        head=nn.Conv2d(3, 2, 1),
    )


@case(a=4, b=3, c=5)
def nested_concatenation() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        first = net.a(x)
        both = torch.cat([first, net.b(first).relu()], 1)
        return net.head(torch.cat([net.c(both), both, first], 1))

    return Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 3, 1), c=nn.Conv2d(7, 5, 1), head=nn.Conv2d(16, 2, 3))


@case(image(2, 1, 5, 7, 6), enc1=4, enc2=6, dec=3)
def unet_of_odd_size() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        skip = net.norm1(net.enc1(x)).relu()
        deep = net.norm2(net.enc2(F.max_pool3d(skip, 2))).relu()
        up = F.interpolate(deep, size=skip.shape[2:], mode="nearest")
        return net.head(net.dec(torch.cat([skip, up], 1)).relu())

    return Net(
        run,
        enc1=nn.Conv3d(1, 4, 3, padding=1, bias=False),
        norm1=nn.BatchNorm3d(4),
        enc2=nn.Conv3d(4, 6, 3, padding=1, bias=False),
        norm2=nn.BatchNorm3d(6),
        dec=nn.Conv3d(10, 3, 3, padding=1),
        head=nn.Conv3d(3, 2, 1),
    )


@case(image(3, 3, 5, 5), left=4, right=4)
def in_place_before_concatenation() -> nn.Module:
    # nnU-Net's norm and non-linearity: the activation overwrites the view through which an instance norm works.
    def run(net: Any, x: Tensor) -> Tensor:
        left = net.act(net.norm_left(net.left(x)))
        right = net.act(net.norm_right(net.right(x)))
        return net.head(torch.cat([left, right], 1))

    return Net(
        run,
        left=nn.Conv2d(3, 4, 3, padding=1),
        norm_left=nn.InstanceNorm2d(4, affine=True),
        right=nn.Conv2d(3, 4, 1),
        norm_right=nn.InstanceNorm2d(4, affine=True),
        act=nn.LeakyReLU(0.1, inplace=True),
        head=nn.Conv2d(8, 2, 1),
    )


@case(body=4, inner=5)
def learned_positions() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.inner(net.body(x) + net.positions).relu())

    return Net(
        run,
        body=nn.Conv2d(3, 4, 3),
        positions=nn.Parameter(torch.randn(1, 4, 5, 5)),
        inner=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(image(2, 3, 6, 8), body=4, up=7, down=5)
def learned_positions_of_tokens() -> nn.Module:
    # Rows and columns have labels of their own, and then share a dimension.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x) + net.rows + net.columns
        y = net.down(net.up(y.flatten(2).transpose(1, 2)).relu())
        return net.head(y.mean(1))

    return Net(
        run,
        body=nn.Conv2d(3, 4, 2, stride=2),
        rows=nn.Parameter(torch.randn(4, 3, 1)),
        columns=nn.Parameter(torch.randn(4, 1, 4)),
        up=nn.Linear(4, 7),
        down=nn.Linear(7, 5),
        head=nn.Linear(5, 2),
    )


class Waves(nn.Module):
    """Adds fixed positions, which it holds in an ordinary attribute."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.waves = torch.linspace(0, 9, math.prod(shape)).reshape(shape).sin()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.waves.to(x)


@case(body=4, inner=5)
def positions_in_an_attribute() -> nn.Module:
    waves = Waves(1, 4, 5, 5)
    return Net(
        lambda net, x: net.head(net.inner(net.again(net.waves(net.body(x)).relu())).relu()),
        body=nn.Conv2d(3, 4, 3),
        waves=waves,
        again=waves,
        inner=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(image(2, 3, 5, 4), body=4, hidden=7)
def learned_positions_before_flattening() -> nn.Module:
    # Channels, rows and columns share a dimension.
    return Net(
        lambda net, x: net.head(net.hidden((net.body(x) + net.positions).flatten(1)).relu()),
        body=nn.Conv2d(3, 4, 3),
        positions=nn.Parameter(torch.randn(4, 3, 2)),
        hidden=nn.Linear(24, 7),
        head=nn.Linear(7, 2),
    )


@case(image(2, 3), right=5, hidden=6, unprunable={"view": "shares a dimension"})
def outer_product() -> nn.Module:
    # Bilinear pooling: every channel of one side with every channel of the other; one of the sides is pruned.
    def run(net: Any, x: Tensor) -> Tensor:
        products = net.left(x)[:, :, None] * net.right(x)[:, None]
        return net.head(net.hidden(products.flatten(1)).relu())

    return Net(run, left=nn.Linear(3, 4), right=nn.Linear(3, 5), hidden=nn.Linear(20, 6), head=nn.Linear(6, 2))


@case(lambda: (image(2, 3, 5, 5)(), torch.tensor([1, 4])), body=4)
def embedding_added_to_features() -> nn.Module:
    def run(net: Any, x: Tensor, kind: Tensor) -> Tensor:
        return net.head((net.body(x) + net.table(kind)[:, :, None, None]).relu())

    return Net(run, body=nn.Conv2d(3, 4, 3), table=nn.Embedding(6, 4), head=nn.Conv2d(4, 2, 1))


@case(body=4, squeeze=3)
def split_attention() -> nn.Module:
    # ResNeSt: two branches are weighed against each other, channel by channel, and added up.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        y = y.reshape(y.shape[0], 2, y.shape[1] // 2, *y.shape[2:])
        gate = net.excite(net.squeeze(y.sum(1).mean((2, 3))).relu())
        gate = gate.view(len(x), 2, -1).softmax(1)
        return net.head((y * gate[..., None, None]).sum(1))

    return Net(
        run,
        body=nn.Conv2d(3, 8, 3),
        squeeze=nn.Linear(4, 3),
        excite=nn.Linear(3, 8),
        head=nn.Conv2d(4, 2, 1),
    )
