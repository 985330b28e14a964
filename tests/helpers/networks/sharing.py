"""Modules that occur several times; several inputs and outputs."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from helpers.networks._case import Net, case, image

# -- modules that occur several times ----------------------------------------------------------------------------------


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

    return Net(run, body=nn.Conv2d(3, 4, 1), blocks=nn.ModuleList([block]), again=block, head=nn.Conv2d(5, 2, 1))


# -- inputs and outputs ------------------------------------------------------------------------------------------------


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


@dataclass
class Outputs:
    """What a model may return."""

    mask: Tensor
    others: list[Tensor]


@case(body=4)
def outputs_in_a_dataclass() -> nn.Module:
    def run(net: Any, x: Tensor) -> Outputs:
        y = net.body(x).relu()
        return Outputs(net.head(y), [net.side(y)])

    return Net(run, body=nn.Conv2d(3, 4, 3), head=nn.Conv2d(4, 2, 1), side=nn.Conv2d(4, 3, 1))


@case(stem=4, inner=6, outer=5)
def checkpoint_inside() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        def block(y: Tensor) -> Tensor:
            return net.outer(net.inner(y).relu()).relu()

        return net.head(checkpoint(block, net.stem(x).relu(), use_reentrant=False))

    return Net(
        run,
        stem=nn.Conv2d(3, 4, 1),
        inner=nn.Conv2d(4, 6, 3),
        outer=nn.Conv2d(6, 5, 1),
        head=nn.Conv2d(5, 2, 1),
    )
