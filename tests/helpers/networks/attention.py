"""Networks that multiply activations with each other: attention in the ways in which it is written."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks._case import Net, case, image

TOKENS = image(2, 5, 6)


def _products(width: int, *, tokens: int = 5, batch: int = 2) -> int:
    """Multiply-adds of queries with keys and of attention maps with values, which are all of that width."""
    return 2 * batch * width * tokens**2


def _heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def _projections(width: int = 8, source: int = 6, values: int | None = None) -> dict[str, nn.Module]:
    values = values or width
    return {
        "query": nn.Linear(source, width),
        "key": nn.Linear(source, width),
        "value": nn.Linear(source, values),
        "out": nn.Linear(values, 7),
        "head": nn.Linear(7, 2),
    }


@case(TOKENS, products=_products(8), query=4, value=4, out=7)
def dot_product_attention() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = (_heads(layer(x), 2) for layer in (net.query, net.key, net.value))
        y = F.scaled_dot_product_attention(q, k, v)
        return net.head(net.out(y.transpose(1, 2).flatten(2)))

    return Net(run, **_projections())


@case(TOKENS, products=_products(8), query=4, value=4, out=7)
def attention_with_a_scale_from_the_head_size() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = (_heads(layer(x), 2) for layer in (net.query, net.key, net.value))
        y = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
        return net.head(net.out(y.transpose(1, 2).flatten(2)))

    return Net(run, **_projections())


@case(TOKENS, products=_products(8), query=4, value=4, out=7)
def attention_by_einsum() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, -1)) for layer in (net.query, net.key, net.value))
        weights = torch.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k).softmax(-1)
        return net.head(net.out(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)))

    return Net(run, **_projections())


@case(TOKENS, products=_products(8), qkv=4, out=7)
def attention_with_one_projection() -> nn.Module:
    # As in vision transformers: a third of what one layer makes is queries, keys or values.
    def run(net: Any, x: Tensor) -> Tensor:
        qkv = net.qkv(x)
        q, k, v = qkv.reshape(*x.shape[:2], 3, 2, qkv.shape[-1] // 6).permute(2, 0, 3, 1, 4)
        y = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return net.head(net.out(y.transpose(1, 2).flatten(2)))

    return Net(run, qkv=nn.Linear(6, 24), out=nn.Linear(8, 7), head=nn.Linear(7, 2))


@case(TOKENS, products=_products(12), query=3, value=3, out=7)
def grouped_query_attention() -> nn.Module:
    # Two heads of queries for each of keys and values.
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = _heads(net.query(x), 4), _heads(net.key(x), 2), _heads(net.value(x), 2)
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return net.head(net.out(y.transpose(1, 2).flatten(2)))

    sizes = {"query": (6, 12), "key": (6, 6), "value": (6, 6), "out": (12, 7), "head": (7, 2)}
    return Net(run, **{name: nn.Linear(*size) for name, size in sizes.items()})


@case(TOKENS, products=_products(8), key=4, value=4, out=7)
def multi_query_attention() -> nn.Module:
    # Heads of queries share keys and values.
    def run(net: Any, x: Tensor) -> Tensor:
        k, v = (layer(x).unsqueeze(1).expand(-1, 2, -1, -1) for layer in (net.key, net.value))
        y = F.scaled_dot_product_attention(_heads(net.query(x), 2), k, v)
        return net.head(net.out(y.transpose(1, 2).flatten(2)))

    sizes = {"query": (6, 8), "key": (6, 4), "value": (6, 4), "out": (8, 7), "head": (7, 2)}
    return Net(run, **{name: nn.Linear(*size) for name, size in sizes.items()})


@case(image(2, 3, 7, 7), products=_products(4, tokens=49), qkv=4, after=5)
def attention_between_positions() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        q, k, v = net.qkv(x).flatten(2).chunk(3, dim=1)
        y = (v @ (q.transpose(1, 2) @ k).softmax(-1)).unflatten(2, (7, 7))
        return net.head(net.after(y).relu())

    return Net(run, qkv=nn.Conv2d(3, 12, 1), after=nn.Conv2d(4, 5, 1), head=nn.Conv2d(5, 2, 1))


@case(image(2, 5, 8), products=_products(8), stem=4, up=12)
def multihead_attention() -> nn.Module:
    # Its forward makes as many features as it gets.
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.stem(x)
        y = y + net.heads(y, y, y)[0]
        return net.head(y + net.down(F.gelu(net.up(y))))

    return Net(
        run,
        stem=nn.Linear(8, 8),
        heads=nn.MultiheadAttention(8, 2, batch_first=True),
        up=nn.Linear(8, 12),
        down=nn.Linear(12, 8),
        head=nn.Linear(8, 2),
    )


@case(image(2, 5, 8), products=_products(8), stem=4, keys=5, values=7, heads__out_proj=8)
def multihead_attention_to_other_features() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.heads(net.stem(x), net.keys(x), net.values(x), need_weights=False)[0])

    return Net(
        run,
        stem=nn.Linear(8, 8),
        keys=nn.Linear(8, 5),
        values=nn.Linear(8, 7),
        heads=nn.MultiheadAttention(8, 2, batch_first=True, kdim=5, vdim=7),
        head=nn.Linear(8, 2),
    )


@case(image(2, 5, 8), products=2 * _products(8), stem=4, body__layers__0__linear1=12, body__layers__1__linear1=12)
def transformer_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Net(lambda net, x: net.head(net.body(net.stem(x))), stem=nn.Linear(8, 8), body=body, head=nn.Linear(8, 2))
