"""The proof holds for computed weights and for norms over channels, in both modes, and notices every wrong index."""

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, weight_norm
from torch.utils.checkpoint import checkpoint

import ranp
from helpers.networks import Net, image
from helpers.oracles import random_plan
from ranp.errors import VerificationError
from ranp.plan import Plan

X = image(2, 3, 7, 7)()


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))))


def computed(weight: Callable[[Any], Tensor], **parameters: nn.Parameter) -> nn.Module:
    """A network whose second layer has a computed weight, from eight channels to six."""

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(F.conv2d(net.body(x).relu(), weight(net)).relu())

    return Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(6, 2, 1), **parameters)


def symmetric() -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(F.linear(net.body(x.mean((2, 3))).relu(), (net.weight + net.weight.T) / 2).relu())

    return Net(run, body=nn.Linear(3, 8), weight=weights(8, 8), head=nn.Linear(8, 2))


class LowRank(nn.Module):
    """LoRA: an update of low rank, which is zero at first."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.down, self.up = weights(2, columns), nn.Parameter(torch.zeros(rows, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).reshape(weight.shape)


def low_rank() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    parametrize.register_parametrization(model[2], "weight", LowRank(6, 8))
    return model


class Standardized(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


def chain(*middle: nn.Module, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *middle, nn.ReLU(), nn.Conv2d(width, 2, 1))


def normed_tokens(norm: nn.Module) -> nn.Module:
    def run(net: Any, x: Tensor) -> Tensor:
        tokens = net.body(x).flatten(2).transpose(1, 2)
        return net.head(tokens + net.down(net.up(net.norm(tokens)).relu()))

    layers = {"body": nn.Conv2d(3, 8, 3), "norm": norm, "up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}
    return Net(run, **layers, head=nn.Linear(8, 2))


COMPUTED: dict[str, Callable[[], nn.Module]] = {
    "two weights added": lambda: computed(
        lambda net: net.one + net.two, one=weights(6, 8, 1, 1), two=weights(6, 8, 1, 1)
    ),
    "a sum of weights": lambda: computed(
        lambda net: torch.stack([net.one, net.two]).sum(0), one=weights(6, 8, 1, 1), two=weights(6, 8, 1, 1)
    ),
    "absolute values": lambda: computed(lambda net: net.one.abs() + 0.1, one=weights(6, 8, 1, 1)),
    "a softmax over positions": lambda: computed(lambda net: net.one.softmax(2), one=weights(6, 8, 3, 3)),
    "symmetric": symmetric,
    "low rank": low_rank,
}
NORMS: dict[str, Callable[[], nn.Module]] = {
    "group norm": lambda: chain(nn.GroupNorm(2, 8)),
    "group norm of all": lambda: chain(nn.GroupNorm(1, 8)),
    "layer norm": lambda: normed_tokens(nn.LayerNorm(8)),
    "layer norm of images": lambda: chain(nn.LayerNorm([8, 5, 5])),
    "weight norm": lambda: chain(parametrizations.weight_norm(nn.Conv2d(8, 6, 1)), width=6),
    "weight norm of inputs": lambda: chain(parametrizations.weight_norm(nn.Conv2d(8, 6, 1), dim=1), width=6),
    "weight norm by a hook": lambda: chain(weight_norm(nn.Conv2d(8, 6, 1)), width=6),
    "weight standardization": lambda: chain(Standardized(8, 6, 3), width=6),
}


def damaged(plan: Plan) -> Iterator[Plan]:
    """The plan with one wrong index, for each of its slices."""
    for index, entry in enumerate(plan.slices):
        free = next(place for place in range(entry.size) if place not in entry.keep)
        wrong = dataclasses.replace(entry, keep=tuple(sorted((*entry.keep[:-1], free))))
        yield dataclasses.replace(plan, slices=(*plan.slices[:index], wrong, *plan.slices[index + 1 :]))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("name", [*COMPUTED, *NORMS])
def test_what_is_pruned_is_exact(name: str) -> None:
    torch.manual_seed(0)
    model = (COMPUTED | NORMS)[name]()
    graph = ranp.trace(model, X)
    assert graph.groups
    assert graph.has_cross_channel_norm == (name in NORMS)
    for seed, fraction in enumerate((0.2, 0.5, 0.8)):
        found = ranp.verify(model, random_plan(graph, seed, fraction), X)
        assert found.status == "exact"
        assert found.max_error < 1e-12
        assert ("norms over channels" in found.note) == (name in NORMS)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("name", [*COMPUTED, *NORMS])
def test_every_wrong_index_is_noticed(name: str) -> None:
    torch.manual_seed(0)
    model = (COMPUTED | NORMS)[name]()
    plan = random_plan(ranp.trace(model, X), 0, 0.5)
    assert plan.slices
    for wrong in damaged(plan):
        with pytest.raises(VerificationError, match=r"differ|depend"):
            ranp.verify(model, wrong, X)


def test_a_norm_over_other_channels_than_those_that_are_kept_is_noticed() -> None:
    """Unequal groups of a group norm, which no shape shows."""
    model = chain(nn.GroupNorm(2, 8))
    plan = random_plan(ranp.trace(model, X), 0, 0.5)
    kept = plan.slices[0].keep
    half = [index for index in kept if index < 4]
    wrong = tuple(sorted({*kept} - {half[-1]} | {next(index for index in range(4, 8) if index not in kept)}))
    slices = tuple(dataclasses.replace(entry, keep=wrong) for entry in plan.slices)
    with pytest.raises(VerificationError, match="differ"):
        ranp.verify(model, dataclasses.replace(plan, slices=slices), X)


# -- training mode -----------------------------------------------------------------------------------------------------


def with_head_for_training() -> nn.Module:
    def run(net: Any, x: Tensor) -> Any:
        y = F.dropout(net.body(x).relu(), 0.3, net.training)
        return (net.head(y), net.side(y)) if net.training else net.head(y)

    return Net(run, body=nn.Conv2d(3, 8, 3), side=nn.Conv2d(8, 3, 1), head=nn.Conv2d(8, 2, 1))


def test_what_runs_in_training_mode_only_is_compared() -> None:
    model = with_head_for_training()
    plan = random_plan(ranp.trace(model, X), 0, 0.5)
    found = ranp.verify(model, plan, X)
    assert (found.status, found.note) == ("exact", "")
    index = next(index for index, entry in enumerate(plan.slices) if entry.tensor == "side.weight")
    with pytest.raises(VerificationError, match="differ"):
        ranp.verify(model, [*damaged(plan)][index], X)


def test_parameters_that_training_mode_changes_are_compared() -> None:
    """A codebook that follows a moving average, as in vector quantization."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        out = net.head(y)
        if net.training:
            net.code.data.mul_(0.5).add_(out.detach().mean())
        return out + net.code

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1), code=nn.Parameter(torch.ones(2, 1, 1)))
    found = ranp.verify(model, random_plan(ranp.trace(model, X), 0, 0.5), X)
    assert (found.status, found.note) == ("exact", "")
    assert torch.equal(model.code, torch.ones(2, 1, 1))


def test_a_training_mode_that_fails_is_reported() -> None:
    def run(net: Any, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if net.training and targets is None:
            raise ValueError("targets are missing")
        return net.head(net.body(x).relu())

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    found = ranp.verify(model, random_plan(ranp.trace(model, X), 0, 0.5), X)
    assert found.status == "exact"
    assert not found.complete
    assert (
        found.note == "training mode was not compared, because the forward fails in it: ValueError: targets are missing"
    )
    result = ranp.prune(model, X, [], criterion="uniform", budget=ranp.Budget(macs=0.5))
    assert found.note in result.report.warnings


def test_random_branches_are_the_same_in_both_copies() -> None:
    """Layers dropped by Python's random numbers, in training mode."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.body(x).relu()
        for layer in net.layers:
            if not net.training or random.random() < 0.5:
                y = y + layer(y).relu()
        return net.head(y)

    layers = nn.ModuleList([nn.Conv2d(8, 8, 1) for _ in range(8)])
    model = Net(run, body=nn.Conv2d(3, 8, 3), layers=layers, head=nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, X)
    assert graph.groups
    assert ranp.verify(model, random_plan(graph, 0, 0.5), X).status == "exact"


# -- forwards that are hard to run twice -------------------------------------------------------------------------------


def test_what_a_failed_attempt_leaves_behind_does_not_matter() -> None:
    """A window that is cut to the image and stays so, as in Swin; the small image is refused after that."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.window = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), 20

        def forward(self, x: Tensor) -> Tensor:
            self.window = min(self.window, x.shape[-1])
            if self.window < 20:
                raise ValueError("the image is smaller than a window")
            return self.head(self.body(x).relu())

    model, inputs = Windows(), image(1, 3, 40, 40)()
    assert ranp.verify(model, random_plan(ranp.trace(model, inputs), 0, 0.5), inputs).outputs == ((1, 2, 32, 32),)
    assert model.window == 20


def test_what_a_failed_attempt_leaves_behind_outside_of_modules_does_not_matter() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        net.settings["windows"][0] = min(net.settings["windows"][0], x.shape[-1])
        if net.settings["windows"][0] < 40:
            raise ValueError("the image is smaller than a window")
        return net.head(net.body(x).relu())

    model, inputs = Net(run, body=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1)), image(1, 3, 40, 40)()
    model.settings = {"windows": [60]}
    assert ranp.verify(model, random_plan(ranp.trace(model, inputs), 0, 0.5), inputs).outputs == ((1, 2, 40, 40),)
    assert model.settings == {"windows": [60]}


def test_inputs_that_a_forward_changes_are_the_same_for_both_copies() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.body(x.mul_(3)).relu())

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    assert ranp.verify(model, random_plan(ranp.trace(model, X), 0, 0.5), X).status == "exact"


def test_state_that_a_forward_keeps_is_the_same_for_both_copies() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
            self.register_buffer("calls", torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.head(self.body(x).relu() * self.calls)

    model = Counts()
    assert ranp.verify(model, random_plan(ranp.trace(model, X), 0, 0.5), X).status == "exact"
    assert model.calls == 1


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_are_checked_for_structure_too(reentrant: bool) -> None:
    """In single precision, gradients are checked, and reentrant checkpoints support one way to compute them."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = net.norm(net.body(x.float()))
        return net.head(checkpoint(lambda y: net.inner(y).relu(), y, use_reentrant=reentrant))

    layers = {"body": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8), "inner": nn.Conv2d(8, 6, 1)}
    model = Net(run, **layers, head=nn.Conv2d(6, 2, 1))
    found = ranp.verify(model, random_plan(ranp.trace(model, X), 0, 0.5), X)
    assert (found.status, found.note) == ("structural", "the model does not run in float64")


def test_recurrent_layers_in_single_precision_are_compared() -> None:
    """There they are one operator, which knows nothing of missing inputs."""

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.recurrent(net.body(x.float()).flatten(2).transpose(1, 2))[0])

    model = Net(run, body=nn.Conv2d(3, 8, 3), recurrent=nn.LSTM(8, 5, batch_first=True), head=nn.Linear(5, 2))
    graph = ranp.trace(model, X)
    assert [group.name for group in graph.groups] == ["body"]
    found = ranp.verify(model, random_plan(graph, 0, 0.5), X)
    assert found.status == "structural"
    assert found.max_error < 1e-4


def test_a_pruned_model_that_does_not_run_is_reported() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    plan = random_plan(ranp.trace(model, X), 0, 0.5)
    with pytest.raises(VerificationError, match="the forward of the pruned model fails"):
        ranp.verify(model, dataclasses.replace(plan, slices=plan.slices[:-1]), X)


def test_an_operator_of_another_package_leaves_the_structure_to_check() -> None:
    """Nothing says what such an operator does without some channels."""

    def centered(x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)

    @torch.library.custom_op("ranp_tests::centered", mutates_args=())
    def operator(x: Tensor) -> Tensor:
        return centered(x)

    operator.register_fake(centered)
    operator.register_autograd(lambda context, gradient: gradient)

    def rule(tracer: Any, call: Any) -> None:
        tracer.mixed.extend(labels.reshape(-1) for labels in tracer.labels(call.tensors[0]))
        tracer.set(call.outputs[0], tracer.labels(call.tensors[0]))

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(operator(net.body(x)).relu())

    model = Net(run, body=nn.Conv2d(3, 8, 3), head=nn.Conv2d(8, 2, 1))
    graph = ranp.trace(model, X, rules={"ranp_tests::centered": rule})
    found = ranp.verify(model, random_plan(graph, 0, 0.5), X)
    assert found.status == "structural"
    assert found.note == "it is not known what ranp_tests::centered computes without some channels"
    assert not found.complete
