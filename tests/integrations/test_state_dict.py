"""A state dict is all that a freshly built full network needs to become the pruned one, whatever it was before."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ranp
from helpers.networks import CASES
from helpers.oracles import in_double, random_plan, randomize, run
from ranp.errors import PlanError
from ranp.integrations import attach_plan, attached_plan, resize_to_state_dict, shrink_in_place
from ranp.integrations.state_dict import KEY
from ranp.models import UNet3D

PRUNABLE = [name for name, case in CASES.items() if case.groups]


def equal(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", PRUNABLE)
def test_state_dicts_go_from_plan_to_plan(name: str) -> None:
    full, inputs = randomize(CASES[name].build()), in_double(CASES[name].inputs())
    graph = ranp.trace(full, inputs)
    plans = [random_plan(graph, seed, fraction) for seed, fraction in ((0, 0.1), (1, 0.6))]
    smalls = [ranp.apply(full, plan) for plan in plans]
    stored = []
    for plan, small in zip(plans, smalls, strict=True):
        pruned = shrink_in_place(attach_plan(copy.deepcopy(full)), small, plan)
        assert equal(run(pruned, inputs), run(small, inputs))
        stored.append(copy.deepcopy(pruned.state_dict()))
    other = attach_plan(randomize(CASES[name].build(), seed=9))
    for place in (0, 1, 0, 0):
        other.load_state_dict(stored[place])
        assert attached_plan(other) == plans[place]
        assert equal(run(other, inputs), run(smalls[place], inputs))
        assert [str(module) for module in other.modules()] == [str(module) for module in smalls[place].modules()]


def pruned_unet() -> tuple[UNet3D, nn.Module, ranp.Plan]:
    full = UNet3D(1, 2, 4, levels=2)
    plan = random_plan(ranp.trace(full, torch.zeros(1, 1, 8, 8, 8)), 0, 0.3)
    return full, ranp.apply(full, plan), plan


def test_within_a_larger_module_and_a_file_that_runs_no_code(tmp_path: Path) -> None:
    full, small, plan = pruned_unet()
    whole = nn.ModuleDict({"net": shrink_in_place(attach_plan(full), small, plan), "head": nn.Linear(2, 1)})
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    other = nn.ModuleDict({"net": attach_plan(UNet3D(1, 2, 4, levels=2)), "head": nn.Linear(2, 1)})
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    x = torch.randn(1, 1, 8, 8, 8)
    assert equal(run(other["net"].eval(), x), run(small.eval(), x))
    assert torch.equal(other["head"].weight, whole["head"].weight)


def test_who_holds_a_module_holds_the_pruned_one() -> None:
    full, small, plan = pruned_unet()
    modules, head = list(full.modules()), full.head
    shrink_in_place(attach_plan(full.train()), small, plan)
    assert list(full.modules()) == modules
    assert full.head is head
    assert head.in_channels == head.weight.shape[1] == small.get_submodule("head").weight.shape[1]
    assert full.training


def test_weights_drawn_anew_are_taken_on_too() -> None:
    full, _, plan = pruned_unet()
    small, x = ranp.apply(full, plan, weights="glorot", seed=4), torch.randn(1, 1, 8, 8, 8)
    assert not torch.equal(small.get_submodule("head").bias, full.head.bias)
    assert equal(run(shrink_in_place(attach_plan(full), small, plan).eval(), x), run(small.eval(), x))


class Tied(nn.Sequential):
    """Two modules with one weight between them."""

    def __init__(self) -> None:
        super().__init__(nn.Conv1d(1, 6, 1), nn.Conv1d(6, 6, 1), nn.ReLU(), nn.Conv1d(6, 6, 1), nn.Conv1d(6, 2, 1))
        self[3].weight = self[1].weight


def test_what_modules_share_they_share_afterwards() -> None:
    full, x = Tied(), torch.randn(1, 1, 9)
    plan = random_plan(ranp.trace(full, x), 0, 0.3)
    stored = shrink_in_place(attach_plan(full), ranp.apply(full, plan), plan).state_dict()
    other = attach_plan(Tied())
    other.load_state_dict(stored)
    for pruned in (full, other):
        assert pruned[3].weight is pruned[1].weight
        assert pruned[3].weight.shape[0] < 6


def test_a_network_that_was_never_pruned_is_stored_as_ever() -> None:
    full = attach_plan(UNet3D(1, 2, 4, levels=2))
    assert attached_plan(full) is None
    assert full.state_dict().keys() == UNet3D(1, 2, 4, levels=2).state_dict().keys()
    full.load_state_dict(UNet3D(1, 2, 4, levels=2).state_dict())


def test_what_a_state_dict_lacks_stays(tmp_path: Path) -> None:
    """Taking a plan's shape leaves parameters alone that keep their size."""
    full, small, plan = pruned_unet()
    stored = shrink_in_place(attach_plan(full), small, plan).state_dict()
    other = attach_plan(UNet3D(1, 2, 4, levels=2))
    bias = other.head.bias.detach().clone()
    del stored["head.bias"]
    other.load_state_dict(stored, strict=False)
    assert torch.equal(other.head.bias, bias)


@pytest.mark.parametrize(
    "entry",
    [torch.zeros(4), torch.zeros(4, dtype=torch.uint8), torch.zeros((), dtype=torch.uint8), "a plan", b"{}"],
    ids=["floats", "no JSON", "no dimension", "a text", "bytes"],
)
def test_a_damaged_plan_is_refused_and_nothing_changes(entry: Any) -> None:
    other = attach_plan(UNet3D(1, 2, 4, levels=2))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(PlanError):
        other.load_state_dict({**before, KEY: entry})
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_plan_for_another_network_is_refused() -> None:
    full, small, plan = pruned_unet()
    stored = shrink_in_place(attach_plan(full), small, plan).state_dict()
    other = attach_plan(UNet3D(1, 2, 8, levels=2))
    with pytest.raises(PlanError, match="made for another model"):
        resize_to_state_dict(other, stored)
    assert attached_plan(other) is None


def test_the_plan_that_a_network_has_already_changes_nothing() -> None:
    full, small, plan = pruned_unet()
    stored = copy.deepcopy(shrink_in_place(attach_plan(full), small, plan).state_dict())
    held = list(full.parameters())
    assert not resize_to_state_dict(full, stored)
    full.load_state_dict(stored)
    assert all(a is b for a, b in zip(full.parameters(), held, strict=True))
    assert resize_to_state_dict(attach_plan(UNet3D(1, 2, 4, levels=2)), stored)


def test_a_network_unknown_to_attach_plan_is_refused() -> None:
    full, small, plan = pruned_unet()
    with pytest.raises(PlanError, match="attach_plan"):
        shrink_in_place(full, small, plan)


def test_copies_go_their_own_ways() -> None:
    full, small, plan = pruned_unet()
    twin = copy.deepcopy(attach_plan(full))
    shrink_in_place(full, small, plan)
    assert attached_plan(twin) is None
    twin.load_state_dict(full.state_dict())
    assert attached_plan(twin) == plan
