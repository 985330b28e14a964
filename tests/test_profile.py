"""Costs by module, against counters that run the model."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ranp
from helpers.networks import CASES
from helpers.oracles import counted_activation_bytes, counted_macs, counted_params, slow_attention
from ranp.errors import TraceError
from ranp.models import UNet3D
from ranp.profile import ModuleCost, Profile, profile


def counted_by_module(model: nn.Module, inputs: Tensor) -> Counter[str]:
    """Multiply-adds of every module and all in it, by torch's counter; the model's own name is left out of paths."""
    with slow_attention(), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    root = type(model).__name__
    found = Counter[str]()
    for path, operators in counter.get_flop_counts().items():
        found["" if path in (root, "Global") else path.removeprefix(f"{root}.")] = sum(operators.values()) // 2
    return found


def bytes_of_leaves(model: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Bytes of what modules without modules return; a second count where nothing is a view or in place."""
    found: dict[str, int] = {}
    leaves = {path: module for path, module in model.named_modules() if not list(module.children())}
    for path, module in leaves.items():
        module.register_forward_hook(lambda _module, _args, out, path=path: found.update({path: out.nbytes}))
    with torch.no_grad():
        model(inputs)
    return found


def check_sums(found: Profile, model: nn.Module, inputs: Any) -> None:
    assert found.total == ranp.trace(model, inputs).cost()
    for name, counted in (
        ("macs", counted_macs(model, inputs)),
        ("params", counted_params(model)),
        ("activation_bytes", counted_activation_bytes(model, inputs)),
    ):
        assert sum(getattr(module, name) for module in found.modules) == getattr(found.total, name) == counted
    assert len({module.name for module in found.modules}) == len(found.modules)
    for module in found.modules:
        assert type(model.get_submodule(module.name)).__name__ == module.kind
        assert module.params or module.macs or module.activation_bytes


@pytest.mark.parametrize("name", CASES)
def test_sums_are_those_of_counters(name: str) -> None:
    case = CASES[name]
    model, inputs = case.build().eval(), case.inputs()
    check_sums(profile(model, inputs), model, inputs)


def test_every_module_of_a_network() -> None:
    model, inputs = UNet3D(1, 3, width=8).eval(), torch.zeros(2, 1, 17, 16, 18)
    found = {module.name: module for module in profile(model, inputs).modules}
    macs, leaves = counted_by_module(model, inputs), bytes_of_leaves(model, inputs)
    for path, counted in macs.items():
        inside = [cost for name, cost in found.items() if path == "" or f"{name}.".startswith(f"{path}.")]
        assert sum(cost.macs for cost in inside) == counted, path
        assert sum(cost.params for cost in inside) == counted_params(model.get_submodule(path))
    assert {path for path, cost in found.items() if cost.macs} <= macs.keys()
    for path, module in model.named_modules():
        if isinstance(module, (nn.Conv3d, nn.BatchNorm3d)):
            assert found[path].activation_bytes == leaves[path]
        if isinstance(module, nn.MaxPool3d):  # It returns places, too, as integers of 8 bytes.
            assert found[path].activation_bytes == 3 * leaves[path]
    # What runs in the model's own forward: upsampling and concatenation, three times each.
    assert found[""].params == found[""].macs == 0
    assert found[""].activation_bytes > 0
    check_sums(profile(model, inputs), model, inputs)


def test_modules_come_in_the_order_of_the_forward() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.last, self.first = nn.Linear(2, 3), nn.Conv1d(4, 2, 1), nn.Conv1d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x)) * 2

    assert profile(Backwards(), torch.zeros(1, 3, 5)).modules == (
        ModuleCost("first", "Conv1d", 16, 60, 80),
        ModuleCost("last", "Conv1d", 10, 40, 40),
        ModuleCost("", "Backwards", 0, 0, 40),
        ModuleCost("unused", "Linear", 9, 0, 0),
    )


def test_what_is_shared_counts_its_parameters_once_and_its_runs_each_time() -> None:
    conv = nn.Conv1d(3, 3, 1)
    (found,) = profile(nn.Sequential(conv, conv), torch.zeros(1, 3, 5)).modules
    assert found == ModuleCost("0", "Conv1d", 12, 2 * 45, 2 * 60)


def test_a_model_that_is_not_ready_is_refused() -> None:
    with pytest.raises(TraceError, match="no shape yet"):
        profile(nn.LazyConv1d(3, 1), torch.zeros(1, 3, 5))
