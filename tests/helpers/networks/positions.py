"""Operators that pick, order or move positions, and those that turn channels into positions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks._case import Net, case, image

EVEN = image(2, 3, 8, 8)


@case(body=3)
def pixel_shuffle() -> nn.Module:
    return Net(
        lambda net, x: net.head(F.pixel_shuffle(net.body(x), 2).relu()),
        body=nn.Conv2d(3, 12, 3),
        head=nn.Conv2d(3, 2, 1),
    )


@case(EVEN, body=4)
def pixel_unshuffle() -> nn.Module:
    return Net(
        lambda net, x: net.head(F.pixel_unshuffle(net.body(x).relu(), 2)),
        body=nn.Conv2d(3, 4, 1),
        head=nn.Conv2d(16, 2, 1),
    )


@case(body=4)
def channel_shuffle_by_operator() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.shuffle(net.body(x).relu())),
        body=nn.Conv2d(3, 8, 3),
        shuffle=nn.ChannelShuffle(2),
        head=nn.Conv2d(8, 2, 1),
    )


@case(EVEN, body=4, after=3)
def columns_and_back() -> nn.Module:
    # Every column holds 2 x 2 positions of every channel; the linear layers mix them.
    def run(net: Any, x: Tensor) -> Tensor:
        columns = F.unfold(net.body(x).relu(), 2, stride=2)
        mixed = net.after(columns.transpose(1, 2)).transpose(1, 2)
        return net.head(F.fold(mixed.relu(), (8, 8), 2, stride=2))

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Linear(16, 12), head=nn.Conv2d(3, 2, 1))


@case(image(2, 3, 7), body=4)
def windows_of_a_signal() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.body(x).unfold(2, 3, 1).mean(-1).relu()),
        body=nn.Conv1d(3, 4, 1),
        head=nn.Conv1d(4, 2, 1),
    )


@case(EVEN, body=4)
def pooled_and_unpooled() -> nn.Module:
    # The places of the maxima are channels too, so what is put there is coupled with what the maxima were taken of.
    def run(net: Any, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(net.body(x), 2, return_indices=True)
        return net.head(F.max_unpool2d(net.after(y).relu(), places, 2))

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 4, 1), head=nn.Conv2d(4, 2, 1))


@case(body=4, where__0=5, unprunable={"grid_sampler_2d": "coordinate"})
def sampled_at_a_grid() -> nn.Module:
    # Registration, or a spatial transformer: the coordinates stay, what is looked at does not.
    def run(net: Any, x: Tensor) -> Tensor:
        grid = net.where(x).tanh().permute(0, 2, 3, 1)
        return net.head(F.grid_sample(net.body(x).relu(), grid, align_corners=False))

    return Net(
        run,
        body=nn.Conv2d(3, 4, 1),
        where=nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1)),
        head=nn.Conv2d(4, 2, 1),
    )


@case(body=4, after=5)
def ordered_positions() -> nn.Module:
    # Maximum, order statistics, chosen rows, and a Fourier transform: none of them touches channels.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        y = torch.cat([y.max(2, keepdim=True).values, y.median(2, keepdim=True).values, y.topk(2, dim=2).values], 2)
        y = net.after(y[:, :, torch.tensor([0, 3, 2, 1])].sort().values)
        return net.head(torch.fft.rfft2(y.rot90(1, (2, 3))).abs())

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, unprunable={"index": "by number"})
def channels_by_number() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.after(net.before(x)[:, torch.tensor([3, 0, 1, 2])]).relu())

    return Net(run, before=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))
