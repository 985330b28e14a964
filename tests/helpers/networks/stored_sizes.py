"""Modules that store how many channels they expect, and rely on it in their forwards."""

from typing import Any

import torch
from torch import Tensor, nn

from helpers.networks._case import Net, case, image


class Checked(nn.Module):
    """Knows how many channels its input has, and how many rows it takes of them, which are as many."""

    def __init__(self, channels: int, *, raises: bool = False) -> None:
        super().__init__()
        self.rows = channels
        self.channels, self.raises, self.unused = channels, raises, channels
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.raises and x.shape[1] != self.channels:
            raise ValueError(f"expected {self.channels} channels")
        assert x.shape[1] == self.channels
        return self.conv(x[:, :, : self.rows])  # type: ignore[no-any-return]


def _checked(raises: bool) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        return net.head(net.second(net.first(y).relu() + net.short(y[:, :, :4])).relu())

    return Net(
        run,
        body=nn.Conv2d(3, 4, 3, padding=1),
        first=Checked(4, raises=raises),
        short=nn.Conv2d(4, 4, 1),
        second=Checked(4, raises=raises),
        head=nn.Conv2d(4, 2, 1),
    )


@case(body=4, first__conv=4, second__conv=4)
def input_asserted() -> nn.Module:
    # All three groups have the same width, but each number counts one of them.
    return _checked(raises=False)


@case(body=4, first__conv=4, second__conv=4)
def input_checked() -> nn.Module:
    return _checked(raises=True)


class Mixed(nn.ModuleDict):
    """Depthwise convolutions of several sizes, each of a part of the channels (MixNet)."""

    def __init__(self, *parts: int) -> None:
        super().__init__()
        self.splits = list(parts)
        for n, width in enumerate(parts):
            self[str(n)] = nn.Conv2d(width, width, 2 * n + 3, padding=n + 1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.splits, 1)
        return torch.cat([conv(part) for conv, part in zip(self.values(), parts, strict=True)], 1)


@case(body=4, body_2=3, after=5)
def mixed_depthwise() -> nn.Module:
    # The parts keep their channels independently of each other.
    return Net(
        lambda net, x: net.head(net.after(net.mixed(net.body(x).relu()).relu()).relu()),
        body=nn.Conv2d(3, 7, 1),
        mixed=Mixed(4, 3),
        after=nn.Conv2d(7, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


class Partial(nn.Module):
    """Convolves a part of the channels and leaves the others alone (FasterNet)."""

    def __init__(self, part: int, others: int, *, slices: bool = False) -> None:
        super().__init__()
        self.part, self.others, self.slices = part, others, slices
        self.conv = nn.Conv2d(part, part, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.slices:
            return torch.cat([self.conv(x[:, : self.part]), x[:, self.part :]], 1)
        part, others = torch.split(x, [self.part, self.others], dim=1)
        return torch.cat([self.conv(part), others], 1)


def _partial(slices: bool) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        return net.head(net.after(net.partial(y).relu() + net.short(y)).relu())

    return Net(
        run,
        body=nn.Conv2d(3, 7, 1),
        partial=Partial(2, 5, slices=slices),
        short=nn.Conv2d(7, 7, 1),
        after=nn.Conv2d(7, 4, 1),
        head=nn.Conv2d(4, 2, 1),
    )


@case(body=2, body_2=5, partial__conv=2, after=4)
def partial_convolution() -> nn.Module:
    return _partial(slices=False)


@case(body=2, body_2=5, partial__conv=2, after=4)
def partial_convolution_by_slices() -> nn.Module:
    return _partial(slices=True)


class Encoder(nn.Module):
    """Mean and spread in one tensor (a variational autoencoder)."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.both = nn.Conv2d(4, 2 * latent, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.both(x)
        return h[:, : self.latent] * h[:, self.latent :].sigmoid()  # type: ignore[no-any-return]


@case(body=4, encoder__both=3)
def mean_and_spread() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.encoder(net.body(x).relu()).relu()),
        body=nn.Conv2d(3, 4, 1),
        encoder=Encoder(3),
        head=nn.Conv2d(3, 2, 1),
    )


class Separable(nn.Module):
    """Attention with one channel for its weights (MobileViT v2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.qkv, self.out = nn.Conv2d(channels, 1 + 2 * width, 1), nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split([1, self.width, self.width], dim=1)
        context = (k * q.softmax(-1)).sum(-1, keepdim=True)
        return self.out(v.relu() * context)  # type: ignore[no-any-return]


@case(body=4, inner__qkv=1, inner__qkv_2=3)
def one_channel_and_others() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.inner(net.body(x).relu()) + net.body(x)),
        body=nn.Conv2d(3, 4, 1),
        inner=Separable(4, 3),
        head=nn.Conv2d(4, 2, 1),
    )


class Noisy(nn.Module):
    """Adds to as many channels as it expects."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(1, self.channels, 1, 1).to(x.dtype)


@case(body=4)
def zeros_of_a_stored_number() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.noisy(net.body(x)).relu()),
        body=nn.Conv2d(3, 4, 1),
        noisy=Noisy(4),
        head=nn.Conv2d(4, 2, 1),
    )


@case(image(2, 3, 4, 4), after=5, unprunable={"view": "with fewer channels"})
def a_number_in_the_code() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.after(net.body(x).relu().view(-1, 4, 4, 4)).relu())

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))
