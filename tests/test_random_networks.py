"""Every promise of pruning, for random networks; `make fuzz` checks 10,000 of them."""

import json
from collections.abc import Iterable

import pytest
import torch
from torch import nn

import ranp
from helpers.pruning_checks import Outcome, check_network
from helpers.random_networks import KINDS, Network, Step, build, draw, shrunk
from ranp.tracing import RULES, operators

COUNT, PART = 270, 15
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
        for operator in operators(network.model, network.inputs)[0]:
            reached |= {f"aten::{operator.name}", f"aten::{operator.name.removesuffix('_')}"}
    assert RULES.keys() - reached == {f"aten::{name}" for name in UNREACHED_RULES}


def test_every_layer_of_torch_is_used(networks: list[Network]) -> None:
    layers = {name for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    left_out = {name for name in layers if name.startswith("Lazy") or "Loss" in name}
    used = {type(module).__name__ for network in networks for module in network.model.modules()}
    assert layers - left_out - used == UNUSED_LAYERS.keys()


def test_every_variant_is_featured(networks: list[Network]) -> None:
    kinds = {step.kind for network in networks for step in network.spec}
    assert {name for name, kind in KINDS.items()} - kinds == set()
    assert 3 * COUNT >= sum(kind.variants for kind in KINDS.values())


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
    """Of all steps, only the one that is looked for stays, with the first option of each of its choices."""
    number = next(number for number in range(COUNT) if any(s.kind == "batch_norm" for s in draw(number).spec[3:]))

    def has_batch_norm(spec: Iterable[Step]) -> bool:
        try:
            return "nn.BatchNorm" in build(tuple(spec)).code
        except Exception:
            return False

    small = shrunk(draw(number).spec, has_batch_norm)
    assert [step.kind for step in small] == ["inputs", "batch_norm", "outputs"]
    assert all(choice is None for step in small for choice in step.choices)


def _values(network: Network) -> Iterable[torch.Tensor]:
    return network.model.state_dict().values()


# -- the checks can fail -----------------------------------------------------------------------------------------------


class Wrong(nn.Module):
    """A forward that tracing cannot see through: the number of channels decides what it computes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
