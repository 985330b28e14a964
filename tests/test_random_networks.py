"""Every promise of pruning, for random networks; `make fuzz` checks 10,000 of them."""

import json
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ranp
from helpers.pruning_checks import Outcome, check_network
from helpers.random_networks import KINDS, Network, Step, build, draw, randomized, shrunk
from ranp import allocate, apply, load, trace
from ranp.errors import VerificationError
from ranp.graph import ChannelGraph
from ranp.plan import Plan
from ranp.tracing import RULES, operators

COUNT, PART = 285, 15
# What limits.md says.
REFUSALS = ("no channel that can be removed",)

UNREACHED_RULES = {
    **dict.fromkeys(
        (
            "adaptive_avg_pool1d",
            "adaptive_avg_pool2d",
            "adaptive_avg_pool3d",
            "argsort",
            "avg_pool1d",
            "contiguous",
            "dropout",
            "linear",
            "reshape",
            "resolve_conj",
            "resolve_neg",
            "selu",
            "to",
        ),
        "torch makes other operators of it before any mode sees it; some versions do not",
    ),
    **dict.fromkeys(
        (
            "_batch_norm_no_update",
            "_batch_norm_with_update",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_reshape_alias",
            "lift_fresh",
            "native_channel_shuffle",
            "native_dropout",
        ),
        "other versions of torch, and exported graphs, have it",
    ),
    **dict.fromkeys(
        ("_fused_rms_norm", "cudnn_batch_norm", "cudnn_grid_sampler", "miopen_batch_norm"),
        "GPUs only",
    ),
}
COLLECTIVES = "all_reduce all_reduce_ broadcast broadcast_ wait_tensor"
# tests/tracing/test_distributed.py has networks with them, which need several processes.
UNREACHED_COLLECTIVES = {f"_c10d_functional::{name}" for name in COLLECTIVES.split()} | {
    f"c10d::{name}" for name in ("allreduce_", "allreduce_coalesced_", "broadcast_")
}
UNUSED_LAYERS = {
    **dict.fromkeys(("Container", "Module", "RNNBase", "RNNCellBase"), "a base class"),
    **dict.fromkeys(("DataParallel", "SyncBatchNorm"), "GPUs only"),
}


@pytest.fixture(scope="module")
def networks() -> list[Network]:
    return [draw(number) for number in range(COUNT)]


@pytest.mark.parametrize("first", range(0, COUNT, PART))
def test_all_that_is_promised(first: int) -> None:
    for number in range(first, first + PART):
        network = draw(number)
        outcome = check_network(network.model, network.inputs, number)
        assert not outcome.failures, explained(number, network, outcome)
        assert not outcome.refused or any(reason in outcome.refused for reason in REFUSALS), outcome.refused


def explained(number: int, network: Network, outcome: Outcome) -> str:
    """What failed, and how to reproduce it."""
    failures = "\n\n".join(f"{failure.check}: {failure.detail}" for failure in outcome.failures)
    hint = f"python benchmarks/random_networks.py --seed {number} --count 1 looks for a smaller network"
    return f"network {number}: {failures}\n\n{network.code}\n{hint}"


def test_every_rule_is_reached(networks: list[Network]) -> None:
    reached = set()
    for network in networks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = operators(network.model, network.inputs)[0]
        for operator in found:
            reached |= {f"aten::{operator.name}", f"aten::{operator.name.removesuffix('_')}"}
    assert RULES.keys() - reached == {f"aten::{name}" for name in UNREACHED_RULES} | UNREACHED_COLLECTIVES


def test_every_layer_of_torch_is_used(networks: list[Network]) -> None:
    layers = {name for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    left_out = {name for name in layers if name.startswith("Lazy") or "Loss" in name}
    used = {type(module).__name__ for network in networks for module in network.model.modules()}
    assert layers - left_out - used == UNUSED_LAYERS.keys()


def test_every_variant_is_featured(networks: list[Network]) -> None:
    kinds = {step.kind for network in networks for step in network.spec}
    assert {name for name, kind in KINDS.items()} - kinds == set()
    assert sum(kind.variants for kind in KINDS.values()) <= 3 * COUNT


def test_a_number_always_gives_the_same_network() -> None:
    for number in range(20):
        first, second = draw(number), draw(number)
        assert (first.spec, first.code) == (second.spec, second.code)
        assert all(torch.equal(a, b) for a, b in zip(_values(first), _values(second), strict=True))


def test_plain_data_build_the_same_network() -> None:
    for number in range(20):
        network = draw(number)
        stored = json.loads(json.dumps(network.spec))
        spec = tuple(Step(kind, tuple(map(tuple, sources)), tuple(choices)) for kind, sources, choices in stored)
        assert build(spec).code == network.code


def test_code_builds_the_same_network() -> None:
    network = draw(3)
    scope: dict[str, object] = {"__name__": "printed"}
    exec(network.code, scope)
    model = scope["build"]()
    assert [(name, value.shape) for name, value in model.state_dict().items()] == [
        (name, value.shape) for name, value in network.model.state_dict().items()
    ]


def test_networks_become_as_small_as_possible() -> None:
    """The step that is looked for stays, and one that makes its input, with the first option of each of its choices."""

    def has_batch_norm(spec: Iterable[Step]) -> bool:
        return any(step.kind == "batch_norm" for step in spec)

    number = next(number for number in range(COUNT) if has_batch_norm(draw(number).spec[3:]))

    def built_with_batch_norm(spec: Iterable[Step]) -> bool:
        try:
            build(tuple(spec))
            return has_batch_norm(spec)
        except Exception:
            return False

    small = shrunk(draw(number).spec, built_with_batch_norm)
    kinds = [step.kind for step in small]
    assert kinds[0] == "inputs"
    assert kinds[-2:] == ["batch_norm", "outputs"]
    assert len(kinds) <= 4
    assert all(choice is None for step in small for choice in step.choices)


def _values(network: Network) -> Iterable[torch.Tensor]:
    return network.model.state_dict().values()


# -- the checks can fail -----------------------------------------------------------------------------------------------


def plain() -> tuple[nn.Module, torch.Tensor]:
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 2, 1),
    )
    return randomized(nn.Sequential(*layers)), torch.randn(2, 3, 6, 6, dtype=torch.float64)


def swap_channels(model: nn.Module, plan: Plan, **options: Any) -> nn.Module:
    small = apply(model, plan, **options)
    small[3].weight.data = small[3].weight.data.flip(1)
    return small


def scale_statistics(model: nn.Module, plan: Plan, **options: Any) -> nn.Module:
    small = apply(model, plan, **options)
    small[4].momentum = 0.5
    return small


def keep_a_size(model: nn.Module, plan: Plan, **options: Any) -> nn.Module:
    small = apply(model, plan, **options)
    small[3].out_channels = 6
    return small


def widen(model: nn.Module, plan: Plan, **options: Any) -> nn.Module:
    small = apply(model, plan, **options)
    small[5].bias = None
    return small


def draw_a_number(model: nn.Module, inputs: Any, **options: Any) -> ChannelGraph:
    torch.rand(1)
    return trace(model, inputs, **options)


def change_the_mode(model: nn.Module, inputs: Any, **options: Any) -> ChannelGraph:
    graph = trace(model, inputs, **options)
    model[2].train(not model[2].training)
    return graph


def run_the_model(model: nn.Module, inputs: Any, **options: Any) -> ChannelGraph:
    with torch.no_grad():
        model.forward(inputs)
    return trace(model, inputs, **options)


def miscount(graph: ChannelGraph, *args: Any, **options: Any) -> Plan:
    plan = allocate(graph, *args, **options)
    return replace(plan, cost=replace(plan.cost, macs=plan.cost.macs + 1))


def load_other_weights(folder: Path, model: nn.Module) -> nn.Module:
    loaded = load(folder, model)
    loaded[5].bias.data += 1
    return loaded


def crash(*args: Any) -> None:
    raise KeyError("weight")


def disagree(*args: Any) -> None:
    raise VerificationError("verify", "the outputs differ")


SABOTAGE = [
    ("apply", swap_channels, "masked = pruned in eval"),
    ("apply", scale_statistics, "buffers in training"),
    ("apply", keep_a_size, "attributes"),
    ("apply", widen, "params of the pruned network"),
    ("trace", draw_a_number, "caller's torch after trace, apply and verify"),
    ("trace", change_the_mode, "caller's modes after trace, apply and verify"),
    ("trace", run_the_model, "hooks"),
    ("allocate", miscount, "macs of the pruned network"),
    ("load", load_other_weights, "load"),
    ("verify", crash, "crash in verify"),
    ("verify", disagree, "verify"),
]


@pytest.mark.parametrize(("name", "instead", "check"), SABOTAGE)
def test_a_broken_promise_is_noticed(name: str, instead: Any, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranp, name, instead)
    found = (check_network(*plain(), seed) for seed in range(10))
    assert any(failure.check == check for outcome in found for failure in outcome.failures)


def test_nothing_is_noticed_otherwise() -> None:
    for seed in range(4):
        outcome = check_network(*plain(), seed)
        assert (outcome.status, outcome.failures) == ("pruned", [])
