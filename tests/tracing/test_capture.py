"""What is recorded of a forward pass, on meta tensors and on fake ones, in eval and in training mode."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ranp
from helpers.networks import Net, image
from helpers.oracles import counted_activation_bytes, counted_macs

X = image(2, 5, 8)()
MASK = torch.zeros(5, 5)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "masked": {"attn_mask": MASK},
    "scaled": {"scale": 2.0},
}


def attention(heads: int = 2, **options: Any) -> nn.Module:
    """One query head for each of two, or for both of them."""

    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, 4)).transpose(1, 2) for part in (net.q(x), net.k(x), net.v(x)))
        attended = F.scaled_dot_product_attention(q, k, v, enable_gqa=heads < 2, **options)
        return net.head(net.out(attended.transpose(1, 2).flatten(2)))

    layers = {"q": nn.Linear(8, 8), "k": nn.Linear(8, 4 * heads), "v": nn.Linear(8, 4 * heads)}
    return Net(run, **layers, out=nn.Linear(8, 6), head=nn.Linear(6, 2)).eval()


def on_its_device(inner: nn.Module) -> nn.Module:
    """Adds a tensor that was made on a device: only fake tensors run this."""
    return Net(lambda net, x: net.inner(x + torch.zeros(8, device="cpu")), inner=inner).eval()


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("heads", [1, 2])
def test_fused_attention_is_recorded_as_products_and_a_softmax(name: str, heads: int) -> None:
    model = attention(heads, **OPTIONS[name])
    on_meta, fake = ranp.trace(model, X), ranp.trace(on_its_device(model), X)
    for graph, traced in ((on_meta, model), (fake, on_its_device(model))):
        assert not any("has no rule" in entry.reason for entry in graph.unprunable)
        assert graph.cost().macs == counted_macs(traced, X)
    assert [group.width for group in fake.groups] == [group.width for group in on_meta.groups]
    if name != "causal":  # its mask is made elsewhere
        assert fake.cost().activation_bytes == counted_activation_bytes(on_its_device(model), X)


ATEN = torch.ops.aten
KERNELS: dict[str, Callable[..., Any]] = {
    "efficient": lambda *qkv: ATEN._scaled_dot_product_efficient_attention(*qkv, None, True)[0],
    "flash": lambda *qkv: ATEN._scaled_dot_product_flash_attention(*qkv, is_causal=True)[0],
    "cudnn": lambda *qkv: ATEN._scaled_dot_product_cudnn_attention(*qkv, None, True)[0],
    "another device's": lambda *qkv: ATEN._scaled_dot_product_fused_attention_overrideable(*qkv, scale=2.0)[0],
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_other_devices_are_recorded_alike(name: str) -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, 4)).transpose(1, 2) for part in net.qkv(x).chunk(3, -1))
        return net.head(KERNELS[name](q, k, v).transpose(1, 2).flatten(2))

    graph = ranp.trace(Net(run, qkv=nn.Linear(8, 24), head=nn.Linear(8, 2)), X)
    assert not any("has no rule" in entry.reason for entry in graph.unprunable)
    # Two heads of four channels: each of five positions with each other, in both products.
    assert graph.cost().macs == 2 * 5 * (8 * 24 + 8 * 2) + 2 * 2 * (2 * 5 * 5 * 4)


def test_training_mode_that_depends_on_the_data_leaves_eval_mode_as_it_was() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return x if net.training and torch.rand(()) < 0.5 else net.inner(x)

    graph = ranp.trace(nn.Sequential(nn.Linear(8, 8), Net(run, inner=attention())), X)
    assert "depends on the data" in graph.untraced_training_mode
    assert graph.cost().macs == 2 * 5 * 8 * 8 + counted_macs(attention(), X)


class Remembers(nn.Module):
    """Holds what its forwards saw in containers, and fails if that is not what one forward saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.by_name: dict[str, int] = {"before": 1}
        self.hooked = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.hooked:
            self.register_forward_hook(lambda *_: None)
            self.hooked = True
        if self.seen or self.by_name.pop("before") != 1 or len(self._forward_hooks) != 1:
            raise RuntimeError("state of an earlier pass")
        self.seen.append(x.shape[1])
        return x * 2 if self.training else x.flip(0)


def test_passes_do_not_see_each_others_state() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Remembers(), nn.Conv2d(6, 2, 1))
    graph = ranp.trace(model, image(2, 3, 5, 5)())
    assert graph.untraced_training_mode == ""
    assert [group.width for group in graph.groups] == [6]


def test_numbers_in_an_ordinary_attribute_can_be_read() -> None:
    class Scales(nn.Module):
        def __init__(self, table: Tensor) -> None:
            super().__init__()
            self.table = table

        def forward(self, x: Tensor) -> Tensor:
            return x * float(self.table.flatten()[0])

    for table in (torch.ones(3), torch.ones(3, 2)):
        graph = ranp.trace(nn.Sequential(nn.Linear(8, 6), Scales(table), nn.Linear(6, 2)), X)
        assert [group.width for group in graph.groups] == [6]
