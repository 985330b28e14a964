"""Channels that are written into new tensors, or into parts of them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks._case import Net, case, image


@case(body=4, after=5)
def circular_padding() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.after(net.body(x).relu()).relu()),
        body=nn.Conv2d(3, 4, 1),
        after=nn.Conv2d(4, 5, 3, padding=(1, 2), padding_mode="circular"),
        head=nn.Conv2d(5, 2, 1),
    )


@case(image(8, 3, 5, 5), body=2)
def temporal_shift() -> nn.Module:
    # Four frames a clip: a quarter of the channels comes from the next frame, a quarter from the one before. All four
    # quarters keep the same positions.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        clips = y.view(2, 4, *y.shape[1:])
        fold, out = y.shape[1] // 4, torch.zeros(2, 4, *y.shape[1:], dtype=y.dtype)
        out[:, :-1, :fold] = clips[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
        return net.head(out.view(y.shape))

    return Net(run, body=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))


@case(image(2, 3, 7), body=4)
def windows_that_overlap() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        out = y.new_zeros(*y.shape[:2], 11)
        for start in (0, 2, 4):
            out[..., start : start + 7] += y
        return net.head(out)

    return Net(run, body=nn.Conv1d(3, 4, 1), head=nn.Conv1d(4, 2, 1))


@case(body=4)
def channels_beside_constants() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        out = y.new_ones(y.shape[0], y.shape[1] + 3, 7, 7)
        out[:, : y.shape[1]] = y
        return net.head(out)

    return Net(run, body=nn.Conv2d(3, 4, 1), head=nn.Conv2d(7, 2, 1))


@case(body=4, after=5)
def written_twice() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        inner, outer = torch.zeros_like(y[..., :1]).expand(y.shape).contiguous(), y.new_empty(y.shape)
        inner[:] = y
        outer.copy_(inner)
        return net.head(net.after(outer).relu())

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, unprunable={"zeros": "returns"})
def zeros_of_a_number() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        out = torch.zeros(2, 4, 7, 7, dtype=x.dtype)
        out[:] = net.body(x).relu()
        return net.head(net.after(out).relu())

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, unprunable={"index_put_": "by number"})
def written_by_a_table() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        out = torch.zeros_like(y)
        out[:, [2, 0, 1, 3]] = y
        return net.head(net.after(out).relu())

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


def _blurred(blur: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """Blurs features by the same kernel for every channel."""
    return Net(
        lambda net, x: net.head(net.after(blur(net.before(x), net.kernel)).relu()),
        before=nn.Conv2d(3, 4, 1),
        kernel=nn.Parameter(torch.rand(1, 1, 3, 3)),
        after=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(before=4, after=5)
def fixed_blur() -> nn.Module:
    # As many copies of the kernel as there are channels.
    return _blurred(lambda y, kernel: F.conv2d(y, kernel.expand(y.shape[1], 1, 3, 3), groups=y.shape[1]))


@case(before=4, after=5)
def fixed_blur_of_a_batch_of_channels() -> nn.Module:
    def blur(y: Tensor, kernel: Tensor) -> Tensor:
        return F.conv2d(y.flatten(0, 1)[:, None], kernel, padding=1).unflatten(0, y.shape[:2])[:, :, 0]

    return _blurred(blur)


@case(body=4, after=5)
def noise_of_the_shape_of_features() -> nn.Module:
    # Half of the noise is a mask for whole channels; all of it is zero, so that other noise makes no difference.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x)
        y = y * (torch.rand(*y.shape[:2], 1, 1) <= 1) + 0 * torch.randn(y.shape).to(y.dtype)
        return net.head(net.after(y + y.new_zeros(y.shape[1:])).relu())

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, unprunable={"rand": "returns"})
def noise_of_a_number_of_channels() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.after(net.body(x) + 0 * torch.rand(4, 1, 1).to(x.dtype)).relu())

    return Net(run, body=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))
