"""Networks with unprunable channels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from helpers.networks._case import SQUARE, Net, case


@case(after=5, unprunable={"linalg_matrix_exp": "has no rule"})
def operator_without_a_rule() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.after(torch.linalg.matrix_exp(net.before(x))).relu())

    return Net(run, before=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, unprunable={"mean": "reduces over channels"})
def mean_over_channels() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.before(x)
        return net.head(net.after(y * y.mean(1, keepdim=True).sigmoid()).relu())

    return Net(run, before=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, unprunable={"_softmax": "mixes channels"})
def softmax_over_channels() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.after(net.before(x).softmax(1)).relu()),
        before=nn.Conv2d(3, 4, 1),
        after=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(after=5, unprunable={"linalg_vector_norm": "reduces over channels"})
def norm_over_channels() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.before(x)
        return net.head(net.after(y / (1 + torch.linalg.vector_norm(y, 2, dim=1, keepdim=True))).relu())

    return Net(run, before=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, odd=2, unprunable={"slice": ""})
def every_other_channel() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.before(x).relu()
        return net.head(torch.cat([net.after(y[:, ::2]).relu(), net.odd(y[:, 1::2])], 1))

    return Net(
        run,
        before=nn.Conv2d(3, 8, 1),
        after=nn.Conv2d(4, 5, 1),
        odd=nn.Conv2d(4, 2, 1),
        head=nn.Conv2d(7, 2, 1),
    )


@case(after=5, unprunable={"view": "fewer channels"}, products=2 * 2 * 4 * 49 * 49)
def attention_of_fixed_width() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = net.qkv(x).flatten(2).chunk(3, dim=1)
        y = (v @ (q.transpose(1, 2) @ k).softmax(-1)).view(2, 4, 7, 7)
        return net.head(net.after(y).relu())

    return Net(run, qkv=nn.Conv2d(3, 12, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(SQUARE, body__0=5, unprunable={"unsafe_split": "has no rule"})
def recurrent_cell() -> nn.Module:
    # What it reads is pruned; its states are not.
    def run(net: Any, x: Tensor) -> Tensor:
        features = net.body(x)
        state = net.cell(features)
        return net.head(net.cell(features, state)[0])

    return Net(
        run,
        body=nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        cell=nn.LSTMCell(5, 6),
        head=nn.Linear(6, 2),
    )


@case(after=5, unprunable={"mv": "has no rule"})
def spectral_norm() -> nn.Module:
    # It divides by the largest singular value of the whole weight.
    return Net(
        lambda net, x: net.head(net.after(net.before(x).relu()).relu()),
        before=parametrizations.spectral_norm(nn.Conv2d(3, 4, 1)),
        after=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(after=5, unprunable={"convolution": "an operator without a rule computed"})
def weight_from_an_operator_without_a_rule() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.after(F.conv2d(x, torch.linalg.matrix_exp(net.kernel)).relu()).relu()),
        kernel=nn.Parameter(torch.randn(4, 3, 1, 1)),
        after=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(after=5, unprunable={"view_as_real": "complex"})
def complex_weights() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.after(net.twisted(net.before(x).to(net.twisted.weight.dtype)).abs().to(x.dtype)).relu())

    return Net(
        run,
        before=nn.Conv2d(3, 4, 1),
        twisted=nn.Conv2d(4, 4, 1, bias=False, dtype=torch.complex64),
        after=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )
