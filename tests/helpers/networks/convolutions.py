"""Grouped, depthwise and transposed convolutions."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks._case import Net, case, image


@case(expand=6, project=4)
def depthwise() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.relu6(net.norm(net.spatial(net.expand(x).relu())))
        return net.head(net.project(y))

    return Net(
        run,
        expand=nn.Conv2d(3, 6, 1),
        spatial=nn.Conv2d(6, 6, 3, groups=6, padding=1),
        norm=nn.BatchNorm2d(6),
        project=nn.Conv2d(6, 4, 1, bias=False),
        head=nn.Conv2d(4, 2, 3),
    )


@case(expand=4)
def depthwise_with_multiplier() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.spatial(net.expand(x).relu()).relu()),
        expand=nn.Conv2d(3, 4, 1),
        spatial=nn.Conv2d(4, 8, 3, groups=4),
        head=nn.Conv2d(8, 2, 1),
    )


@case(expand=4)
def grouped_in_many_blocks() -> nn.Module:
    # Four blocks of two: whole blocks are removed, inputs and outputs together.
    return Net(
        lambda net, x: net.head(net.grouped(net.expand(x).relu()).relu()),
        expand=nn.Conv2d(3, 8, 1),
        grouped=nn.Conv2d(8, 8, 3, groups=4),
        head=nn.Conv2d(8, 2, 1),
    )


@case(expand=6, grouped=4)
def grouped_in_few_blocks() -> nn.Module:
    # Two blocks of six inputs and four outputs: the same positions of both blocks go.
    return Net(
        lambda net, x: net.head(net.grouped(net.expand(x).relu()).relu()),
        expand=nn.Conv2d(3, 12, 1),
        grouped=nn.Conv2d(12, 8, 3, groups=2),
        head=nn.Conv2d(8, 2, 1),
    )


@case(down=4, up=5)
def transposed() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.norm(net.up(net.down(x).relu())).relu()),
        down=nn.Conv2d(3, 4, 3, stride=2),
        up=nn.ConvTranspose2d(4, 5, 3, stride=2, output_padding=1),
        norm=nn.BatchNorm2d(5),
        head=nn.Conv2d(5, 2, 1),
    )


@case(image(2, 3, 4, 3, 3), down=4, up=3)
def transposed_in_few_blocks() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.up(net.down(x).relu()).relu()),
        down=nn.Conv3d(3, 8, 1),
        up=nn.ConvTranspose3d(8, 6, 2, stride=2, groups=2),
        head=nn.Conv3d(6, 2, 1),
    )


@case(down=4)
def transposed_in_many_blocks() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.up(net.down(x).relu()).relu()),
        down=nn.Conv2d(3, 8, 1),
        up=nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4),
        head=nn.Conv2d(12, 2, 1),
    )


@case(down=6)
def transposed_depthwise() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.up(net.down(x).relu()).relu()),
        down=nn.Conv2d(3, 6, 3),
        up=nn.ConvTranspose2d(6, 6, 3, stride=2, groups=6),
        head=nn.Conv2d(6, 2, 1),
    )


@case(down=3)
def transposed_depthwise_with_multiplier() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.up(net.down(x).relu()).relu()),
        down=nn.Conv2d(3, 3, 3),
        up=nn.ConvTranspose2d(3, 6, 3, groups=3, bias=False),
        head=nn.Conv2d(6, 2, 1),
    )
