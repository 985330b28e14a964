"""Small networks, one for each way in which channels are tied, with their groups derived by hand.

Widths differ wherever they may, so that a group cannot be mistaken for another, and spatial sizes are odd.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """A module whose forward is a function of (modules, inputs)."""

    def __init__(self, run: Callable[..., Any], **modules: Any) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


@dataclass(frozen=True)
class Case:
    """A network, inputs for it, the groups that tracing has to find, and what has to stay whole.

    `frozen` maps an operator to words of the reason; the model's outputs always stay and are not listed.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    groups: Mapping[str, int]
    frozen: Mapping[str, str] = field(default_factory=dict)


CASES: dict[str, Case] = {}
Make = Callable[[], nn.Module]


def image(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(7))


def case(
    inputs: Callable[[], Any] = image(2, 3, 7, 7), frozen: Mapping[str, str] | None = None, **groups: int
) -> Callable[[Make], Make]:
    """Register a network; `groups` are its groups' widths, `__` in a name standing for a dot and `_2` for #2."""

    def register(build: Make) -> Make:
        named = {name.replace("__", ".").replace("_2", "#2"): width for name, width in groups.items()}
        CASES[build.__name__] = Case(build, inputs, named, frozen or {})
        return build

    return register


# -- chains ------------------------------------------------------------------------------------------------------


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


# -- sums --------------------------------------------------------------------------------------------------------


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


@case(stem=4, widen=4, frozen={"constant_pad_nd": "is padding"})
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


@case(inner=5, frozen={"add": "wider than 1"})
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


# -- concatenations ----------------------------------------------------------------------------------------------


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


# -- grouped, depthwise and transposed convolutions --------------------------------------------------------------


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
    # Four blocks of two: whole blocks go, inputs and outputs together.
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


# -- norms and activations ---------------------------------------------------------------------------------------


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

    return Net(
        run, left=nn.Conv2d(3, 4, 3), right=nn.Conv2d(4, 5, 3), act=nn.PReLU(), head=nn.Conv2d(5, 2, 1)
    )


@case(body=4, second=5)
def padding_modes() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.second(net.body(x).relu()).relu()),
        body=nn.Conv2d(3, 4, 3, padding=1),
        second=nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"),
        head=nn.Conv2d(5, 2, 3, padding=1, padding_mode="replicate"),
    )


# -- views -------------------------------------------------------------------------------------------------------


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


@case(left=4, right=4, frozen={"forward": "with fewer channels"})
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
    # The shuffle interleaves the blocks that the grouped convolution behind it keeps apart, so four channels go at a time.
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


@case(before=4, after=5, frozen={"forward": "fails with fewer channels (shape"})
def reshape_by_number() -> nn.Module:
    # The forward writes the number 6 down: `fixed` stays whole, the others do not.
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


# -- modules that occur several times ----------------------------------------------------------------------------


@case(stem=4)
def shared_layer() -> nn.Module:
    # The same convolution twice in a row ties its inputs to its outputs.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.stem(x).relu()
        return net.head(net.shared(net.shared(y).relu()).relu())

    return Net(run, stem=nn.Conv2d(3, 4, 1), shared=nn.Conv2d(4, 4, 3, padding=1), head=nn.Conv2d(4, 2, 1))


@case(left=4, shared=5)
def shared_layer_on_two_inputs() -> nn.Module:
    # The outputs of `left` and `right` go through one convolution, so they go together.
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(torch.cat([net.shared(net.left(x)), net.shared(net.right(x).relu())], 1))

    return Net(
        run,
        left=nn.Conv2d(3, 4, 1),
        right=nn.Conv2d(3, 4, 1),
        shared=nn.Conv2d(4, 5, 3),
        head=nn.Conv2d(10, 2, 1),
    )


@case(body=4, blocks__0=5)
def module_under_two_names() -> nn.Module:
    block = nn.Conv2d(4, 5, 3)

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.again(net.body(x).relu()).relu())

    return Net(
        run, body=nn.Conv2d(3, 4, 1), blocks=nn.ModuleList([block]), again=block, head=nn.Conv2d(5, 2, 1)
    )


# -- inputs and outputs ------------------------------------------------------------------------------------------


@case(body=4, deep=5)
def several_outputs() -> nn.Module:
    def run(net: Any, x: Tensor) -> list[Tensor]:
        y = net.body(x).relu()
        return [net.shallow_head(y), net.deep_head(net.deep(y).relu())]

    return Net(
        run,
        body=nn.Conv2d(3, 4, 3),
        shallow_head=nn.Conv2d(4, 2, 1),
        deep=nn.Conv2d(4, 5, 3),
        deep_head=nn.Conv2d(5, 2, 1),
    )


@case(deep=5)
def outputs_by_name() -> nn.Module:
    # `features` is returned as well as read, so it stays.
    def run(net: Any, x: Tensor) -> dict[str, Tensor]:
        features = net.features(x)
        return {"features": features, "logits": net.head(net.deep(features.relu()).relu())}

    return Net(run, features=nn.Conv2d(3, 4, 3), deep=nn.Conv2d(4, 5, 3), head=nn.Conv2d(5, 2, 1))


@case(lambda: {"image": image(2, 3, 7, 7)(), "context": image(2, 2, 7, 7)()}, body=4, merge=5)
def inputs_by_name() -> nn.Module:
    def run(net: Any, *, image: Tensor, context: Tensor) -> Tensor:
        y = torch.cat([context, net.body(image)], 1)
        return net.head(net.merge(y).relu())

    return Net(run, body=nn.Conv2d(3, 4, 1), merge=nn.Conv2d(6, 5, 3), head=nn.Conv2d(5, 2, 1))


@case(lambda: (image(2, 3, 7, 7)(), image(2, 4, 4, 4)()), coarse=5, fine=5)
def inputs_by_position() -> nn.Module:
    def run(net: Any, fine: Tensor, coarse: Tensor) -> Tensor:
        up = F.interpolate(net.coarse(coarse), size=fine.shape[2:], mode="bilinear")
        return net.head(torch.cat([up.relu(), net.fine(fine).relu()], 1))

    return Net(run, coarse=nn.Conv2d(4, 5, 1), fine=nn.Conv2d(3, 5, 3, padding=1), head=nn.Conv2d(10, 2, 1))


# -- what stays whole --------------------------------------------------------------------------------------------


@case(after=5, frozen={"sort": "has no rule"})
def operator_without_a_rule() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.after(net.before(x).sort(dim=1).values).relu())

    return Net(run, before=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, frozen={"mean": "reduces over channels"})
def mean_over_channels() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.before(x)
        return net.head(net.after(y * y.mean(1, keepdim=True).sigmoid()).relu())

    return Net(run, before=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, frozen={"_softmax": "mixes channels"})
def softmax_over_channels() -> nn.Module:
    return Net(
        lambda net, x: net.head(net.after(net.before(x).softmax(1)).relu()),
        before=nn.Conv2d(3, 4, 1),
        after=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )


@case(after=5, frozen={"linalg_vector_norm": "reduces over channels"})
def norm_over_channels() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.before(x)
        return net.head(net.after(y / (1 + torch.linalg.vector_norm(y, 2, dim=1, keepdim=True))).relu())

    return Net(run, before=nn.Conv2d(3, 4, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, odd=2, frozen={"slice": ""})
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


@case(after=5, frozen={"bmm": "attention"})
def attention() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = net.qkv(x).flatten(2).chunk(3, dim=1)
        y = (v @ (q.transpose(1, 2) @ k).softmax(-1)).view(2, 4, 7, 7)
        return net.head(net.after(y).relu())

    return Net(run, qkv=nn.Conv2d(3, 12, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(after=5, frozen={"convolution": ""})
def fixed_blur_of_unlabelled_kernel() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.before(x)
        y = F.conv2d(y, net.kernel.expand(y.shape[1], 1, 3, 3), groups=y.shape[1])
        return net.head(net.after(y).relu())

    return Net(
        run,
        before=nn.Conv2d(3, 4, 1),
        kernel=nn.Parameter(torch.rand(1, 1, 3, 3)),
        after=nn.Conv2d(4, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )
