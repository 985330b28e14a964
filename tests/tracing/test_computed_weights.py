"""Weights that are computed from parameters before each forward pass."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ranp
from helpers.networks import Net, image
from helpers.oracles import counted_activation_bytes, counted_macs, random_plan
from ranp.errors import InputError, TraceError

X = image(2, 3, 7, 7)()


class StandardizedByBatchNorm(nn.Conv2d):
    """Every filter is brought to mean 0 and variance 1, by a batch norm over (1, out, in * positions)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True)
        return self._conv_forward(x, flat.reshape_as(self.weight), self.bias)


class StandardizedByMoments(nn.Conv2d):
    """The same, written out."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias)


def chain(first: nn.Module, second: nn.Module) -> nn.Module:
    return Net(
        lambda net, x: net.head(net.second(net.first(x).relu()).relu()),
        first=first,
        second=second,
        head=nn.Conv2d(5, 2, 1),
    )


NORMED: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: chain(
        parametrizations.weight_norm(nn.Conv2d(3, 6, 3)), parametrizations.weight_norm(nn.Conv2d(6, 5, 1))
    ),
    "weight norm of inputs": lambda: chain(
        nn.Conv2d(3, 6, 3), parametrizations.weight_norm(nn.ConvTranspose2d(6, 5, 1))
    ),
    "standardized by batch norm": lambda: chain(
        StandardizedByBatchNorm(3, 6, 3), StandardizedByBatchNorm(6, 5, 3, padding=1)
    ),
    "standardized by moments": lambda: chain(StandardizedByMoments(3, 6, 3), StandardizedByMoments(6, 5, 3, padding=1)),
}


@pytest.mark.parametrize("name", NORMED)
def test_norms_of_weights_count_their_inputs(name: str) -> None:
    """Both widths can be pruned, but a filter with fewer inputs has another norm."""
    model = NORMED[name]()
    graph = ranp.trace(model, X)
    assert [(group.name, group.width) for group in graph.groups] == [("first", 6), ("second", 5)]
    assert graph.has_cross_channel_norm
    plan = random_plan(graph, 0, 0.5)
    assert ranp.verify(model, plan, X).status == "exact"
    small = ranp.apply(model, plan)
    loss = small(X).square().mean()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in small.parameters())


def test_a_norm_of_weights_that_read_no_removable_channel_is_exact() -> None:
    model = chain(parametrizations.weight_norm(nn.Conv2d(3, 6, 3)), nn.Conv2d(6, 5, 1))
    plan = random_plan(ranp.trace(model, X), 0, 0.5)
    assert ranp.verify(model, plan, X).status == "exact"
    small = ranp.apply(model, plan)
    kept = list(plan.keep["first"])
    assert torch.equal(small.first.weight, model.first.weight[kept])


class ByColumns(nn.Conv2d):
    """A convolution as a product of the columns of its input and its flattened weight, limited by a buffer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("most", torch.rand_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1) * self.most.flatten(1)
        products = F.linear(F.unfold(x, self.kernel_size).transpose(1, 2), flat, self.bias)  # type: ignore[arg-type]
        return products.transpose(1, 2).unflatten(2, (x.shape[2] - 2, -1))


def test_rows_columns_and_channels_of_a_flattened_weight_are_told_apart() -> None:
    model = chain(nn.Conv2d(3, 6, 1), ByColumns(6, 5, 3)).eval()
    graph = ranp.trace(model, X)
    assert [(group.name, group.width) for group in graph.groups] == [("first", 6), ("second", 5)]
    assert graph.cost().macs == counted_macs(model, X)
    plan = random_plan(graph, 0, 0.3)
    small = ranp.apply(model, plan)
    assert plan.cost.macs == counted_macs(small, X) < graph.cost().macs
    assert plan.cost.activation_bytes == counted_activation_bytes(small, X)
    assert ranp.verify(model, plan, X).status == "exact"


def test_weight_norm_of_the_old_kind_is_copied_and_pruned() -> None:
    """It keeps a computed tensor in an attribute, which copy.deepcopy refuses."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        first = torch.nn.utils.weight_norm(nn.Conv2d(3, 6, 3))
    model = chain(first, nn.Conv2d(6, 5, 1))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    plan = random_plan(ranp.trace(model, X), 0, 0.5)
    assert ranp.verify(model, plan, X).status == "exact"
    small = ranp.apply(model, plan)
    small(X)
    assert torch.equal(small.first.weight, model.first.weight[list(plan.keep["first"])])
    with pytest.raises(InputError, match=r"weights at first: the weight is computed before.*weights='keep'"):
        ranp.apply(model, plan, weights="glorot")


def test_initialized_weights_go_through_their_parametrization() -> None:
    model = chain(parametrizations.weight_norm(nn.Conv2d(3, 6, 3)), nn.Conv2d(6, 5, 1))
    plain = chain(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1))
    plans = [random_plan(ranp.trace(net, X), 0, 0.5) for net in (model, plain)]
    assert plans[0].keep == plans[1].keep
    drawn = [ranp.apply(net, plan, weights="glorot", seed=3) for net, plan in zip((model, plain), plans, strict=True)]
    torch.testing.assert_close(drawn[0].first.weight, drawn[1].first.weight)


def test_lazy_modules_are_refused_by_name() -> None:
    model = chain(nn.Conv2d(3, 6, 3), nn.LazyConv2d(5, 1))
    with pytest.raises(TraceError, match=r"second: is a LazyConv2d, whose parameters have no shape yet.*run the model"):
        ranp.trace(model, X)
    model(X)
    assert [group.width for group in ranp.trace(model, X).groups] == [6, 5]
