"""Operators skip what is missing: they return what they return for tensors that lack it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ranp.surgery._missing import SkipMissing

Kept = dict[str, Any]  # kept indices by the letter of a kind of dimension

# Sizes of kinds of dimensions, and which indices of those that are pruned are kept.
SIZES = {"n": 2, "a": 6, "b": 8, "c": 4, "s": 5, "k": 3, "1": 1, "h": 2}
KEPT = {"a": [0, 2, 5], "b": [0, 1, 3, 4, 5, 7], "c": [0, 1, 3]}  # those of c in both halves of b

Tensors = dict[str, str]

# What is computed, from tensors whose dimensions are named, and the dimensions of the result.
CASES: dict[str, tuple[Callable[..., Tensor], list[str], str]] = {
    "convolution 1D": (F.conv1d, ["nas", "bak", "b"], "nb."),
    "convolution 2D": (F.conv2d, ["nass", "bakk", "b"], "nb.."),
    "convolution 3D": (F.conv3d, ["nasss", "bakkk"], "nb..."),
    "convolution, strided": (lambda x, w: F.conv2d(x, w, stride=2, padding=1, dilation=2), ["nass", "bakk"], "nb.."),
    "depthwise convolution": (lambda x, w: F.conv2d(x, w, groups=x.shape[1]), ["nass", "a1kk"], "na.."),
    "depthwise convolution by one kernel": (
        lambda x, w: F.conv2d(x, w.expand(x.shape[1], 1, -1, -1), groups=x.shape[1]),
        ["nass", "11kk"],
        "na..",
    ),
    "convolution in two blocks": (lambda x, w: F.conv2d(x, w, groups=2), ["nbss", "bckk"], "nb.."),
    "transposed convolution": (F.conv_transpose2d, ["nass", "abkk", "b"], "nb.."),
    "transposed convolution, depthwise": (
        lambda x, w: F.conv_transpose2d(x, w, groups=x.shape[1], stride=2),
        ["nass", "a1kk"],
        "na..",
    ),
    "linear": (F.linear, ["na", "ba", "b"], "nb"),
    "linear, without bias": (F.linear, ["nsa", "ba"], "nsb"),
    "linear, one sample": (F.linear, ["a", "ba", "b"], "b"),
    "matrix product": (torch.matmul, ["sa", "ab"], "sb"),
    "matrix product of rows": (torch.matmul, ["ba", "as"], "bs"),
    "matrix and vector": (torch.mv, ["ba", "a"], "b"),
    "matrix and vector, added": (torch.addmv, ["b", "ba", "a"], "b"),
    "batches of matrices": (torch.bmm, ["nsa", "nab"], "nsb"),
    "batches of matrices, added": (torch.baddbmm, ["nsb", "nsa", "nab"], "nsb"),
    "einsum": (lambda x, w: torch.einsum("nas,ba->nbs", x, w), ["nas", "ba"], "nbs"),
    "low rank": (lambda w, u, v: w + u @ v, ["ba", "bk", "ka"], "ba"),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), ["nhsa"] * 2 + ["nhsb"], "nhsb"),
    "attention, fused": (
        lambda q, k, v: torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=0.3)[0],
        ["nhsa"] * 3,
        "nhsa",
    ),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), ["nbss", "b", "b"], "nbss"),
    "group norm of all": (lambda x: F.group_norm(x, 1), ["nass"], "nass"),
    "layer norm": (lambda x, w, b: F.layer_norm(x, w.shape, w, b), ["nsa", "a", "a"], "nsa"),
    "layer norm of images": (lambda x, w: F.layer_norm(x, w.shape, w), ["nass", "ass"], "nass"),
    "rms norm": (lambda x, w: F.rms_norm(x, w.shape, w), ["nsa", "a"], "nsa"),
    "instance norm": (lambda x, w: F.instance_norm(x, weight=w), ["nass", "a"], "nass"),
    "batch norm": (lambda x, w: F.batch_norm(x, None, None, w, training=True), ["nass", "a"], "nass"),
    "weight norm": (lambda v, g: torch._weight_norm(v, g, 0), ["bakk", "b111"], "bakk"),
    "weight norm of inputs": (lambda v, g: torch._weight_norm(v, g, 1), ["bakk", "1a11"], "bakk"),
    "weights standardized by batch norm": (
        lambda w: F.batch_norm(w.reshape(1, len(w), -1), None, None, training=True).reshape(w.shape),
        ["bakk"],
        "bakk",
    ),
    "two weights added": (lambda v, w: torch.stack([v, w]).sum(0), ["bakk", "bakk"], "bakk"),
    "sum": (lambda x: x.sum(1), ["ba"], "b"),
    "sum of all": (lambda x: x.sum().reshape(1), ["ba"], "1"),
    "mean": (lambda x: x.mean((1, 2), keepdim=True), ["bas"], "b11"),
    "moments": (lambda x: torch.var_mean(x, (1, 2))[0], ["bas"], "b"),
    "standard deviation": (lambda x: x.std((1, 2), correction=0), ["bas"], "b"),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=(1, 2)), ["bas"], "b"),
    "old norm": (lambda x: x.norm(dim=1), ["bas"], "bs"),
    "maximum": (lambda x: x.amax(1), ["bas"], "bs"),
    "maximum with places": (lambda x: x.max(1, keepdim=True)[0], ["bas"], "b1s"),
    "product": (lambda x: x.prod(1), ["bas"], "bs"),
    "median": (lambda x: x.median(1)[0], ["bas"], "bs"),
    "log-sum-exp": (lambda x: x.logsumexp(1), ["bas"], "bs"),
    "maximum of two": (torch.maximum, ["bas", "bas"], "bas"),
    "pooling": (lambda x: F.max_pool2d(x, 2), ["nass"], "na.."),
    "upsampling": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), ["nass"], "na.."),
    "softmax over positions": (lambda x: x.softmax(2), ["nas"], "nas"),
    "concatenation": (lambda x, y: torch.cat([x, y], 2), ["bak", "bas"], "ba."),
}
if hasattr(torch.ops.aten, "_fused_rms_norm"):  # on some devices, in some versions
    CASES["rms norm, fused"] = (
        lambda x, w: torch.ops.aten._fused_rms_norm(x, list(w.shape), w, None)[0],
        ["nsa", "a"],
        "nsa",
    )


def draw(names: str, generator: torch.Generator) -> Tensor:
    return torch.randn([SIZES[name] for name in names], generator=generator, dtype=torch.float64)


def lacking(tensor: Tensor, names: str) -> Tensor:
    """The tensor without what is removed."""
    for dim, name in enumerate(names):
        if name in KEPT:
            tensor = tensor.index_select(dim, torch.tensor(KEPT[name]))
    return tensor


def marked(tensor: Tensor, names: str) -> Tensor:
    """The tensor with NaN in place of what is removed."""
    tensor = tensor.clone()
    for dim, name in enumerate(names):
        if name in KEPT:
            gone = [index for index in range(SIZES[name]) if index not in KEPT[name]]
            tensor.index_fill_(dim, torch.tensor(gone), torch.nan)
    return tensor


@pytest.mark.parametrize("name", CASES)
def test_missing_terms_are_skipped(name: str) -> None:
    compute, shapes, result = CASES[name]
    generator = torch.Generator().manual_seed(0)
    tensors = [draw(names, generator) for names in shapes]
    expected = compute(*(lacking(tensor, names) for tensor, names in zip(tensors, shapes, strict=True)))
    with SkipMissing():
        found = compute(*(marked(tensor, names) for tensor, names in zip(tensors, shapes, strict=True)))
    torch.testing.assert_close(lacking(found, result), expected, rtol=1e-12, atol=1e-12)
    assert found.isnan().equal(marked(torch.zeros_like(found), result).isnan())


@pytest.mark.parametrize("name", CASES)
def test_nothing_changes_where_nothing_is_missing(name: str) -> None:
    compute, shapes, _ = CASES[name]
    generator = torch.Generator().manual_seed(0)
    tensors = [draw(names, generator) for names in shapes]
    with SkipMissing():
        found = compute(*tensors)
    torch.testing.assert_close(found, compute(*tensors), rtol=1e-12, atol=1e-12)
