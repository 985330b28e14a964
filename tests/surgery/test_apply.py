"""Surgery: exact copies, or initialized weights; and plans on models that differ in what a plan leaves open."""

import copy
import math
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ranp
from helpers.networks import CASES, Net, image
from helpers.oracles import assert_masked_is_pruned, in_double, random_plan, randomize
from ranp.errors import InputError, PlanError, TraceError
from ranp.models import UNet3D
from ranp.plan import Plan


def halved(name: str) -> tuple[nn.Module, Plan]:
    case = CASES[name]
    model = randomize(case.build())
    return model, random_plan(ranp.trace(model, in_double(case.inputs())), 2, 0.4)


def test_surviving_values_are_copied_exactly() -> None:
    model, plan = halved("plain")
    small = ranp.apply(model, plan)
    first, second = list(plan.keep["first"]), list(plan.keep["second"])
    assert 0 < len(first) < 6
    assert torch.equal(small.first.weight, model.first.weight[first])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(small.norm, name), getattr(model.norm, name)[first])
    assert torch.equal(small.second.weight, model.second.weight[second][:, first])
    assert torch.equal(small.head.weight, model.head.weight[:, second])
    assert torch.equal(small.head.bias, model.head.bias)


def test_the_result_shares_nothing_with_the_model() -> None:
    model, plan = halved("plain")
    small = ranp.apply(model, plan)
    theirs = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert not theirs & {tensor.untyped_storage().data_ptr() for tensor in (*small.parameters(), *small.buffers())}
    assert all(parameter.is_leaf and parameter.is_contiguous() for parameter in small.parameters())
    assert type(small) is type(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small(in_double(CASES["plain"].inputs())).sum().backward()
    torch.optim.SGD(small.parameters(), lr=1.0).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_modes_and_requires_grad_are_those_of_the_model() -> None:
    model, plan = halved("plain")
    model.train()
    model.norm.eval()
    model.first.weight.requires_grad_(False)
    small = ranp.apply(model, plan)
    assert (small.training, small.norm.training, small.head.training) == (True, False, True)
    assert [p.requires_grad for p in (small.first.weight, small.second.weight)] == [False, True]


@pytest.mark.parametrize("name", ["shared_layer_on_two_inputs", "module_under_two_names"])
def test_what_is_shared_stays_shared(name: str) -> None:
    model, plan = halved(name)
    small = ranp.apply(model, plan)
    pairs = [
        [dict(found.named_parameters(remove_duplicate=False)) for found in (model, small)],
        [dict(found.named_modules(remove_duplicate=False)) for found in (model, small)],
    ]
    for before, after in pairs:
        aliases = [{name: id(value) for name, value in found.items()} for found in (before, after)]
        for a in before:
            for b in before:
                assert (aliases[0][a] == aliases[0][b]) is (aliases[1][a] == aliases[1][b])


@pytest.mark.parametrize("weights", ["glorot", "orthogonal"])
def test_initialized_weights(weights: Any) -> None:
    model = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 8, 3), nn.Flatten())
    plan = random_plan(ranp.trace(model, image(1, 16, 5, 5)()), 0, 0.7)
    state = torch.get_rng_state()
    first, again, other = (ranp.apply(model, plan, weights=weights, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert not torch.equal(first[0].weight, ranp.apply(model, plan)[0].weight)
    assert first[0].weight.shape == ranp.apply(model, plan)[0].weight.shape
    assert [float(found.bias.detach().abs().max()) for found in (first[0], first[1], first[3])] == [0.0, 0.0, 0.0]
    scale = first[1].weight.detach()
    assert abs(float(scale.mean()) - 1) < 0.02
    assert 0.01 < float(scale.std()) < 0.03
    weight = first[0].weight.detach()
    if weights == "glorot":
        outs, ins = weight.shape[:2]
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / (9 * (ins + outs))), rel=0.05)
    else:
        rows = weight.flatten(1)
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)


def test_an_unknown_way_to_draw_is_refused() -> None:
    model, plan = halved("plain")
    with pytest.raises(InputError, match=r"^weights: 'glorott' is unknown; did you mean 'glorot'"):
        ranp.apply(model, plan, weights="glorott")  # type: ignore[arg-type]


# -- plans and models --------------------------------------------------------------------------------------------


def test_a_plan_serves_other_tasks() -> None:
    """Other input channels, other classes, another spatial size."""
    plan = random_plan(ranp.trace(UNet3D(1, 5, width=6), torch.zeros(1, 1, 16, 16, 16)), 0, 0.2)
    other = randomize(UNet3D(2, 3, width=6))
    small = ranp.apply(other, plan)
    inputs = torch.randn(2, 2, 17, 16, 19, dtype=torch.float64)
    assert small(inputs).shape == (2, 3, 17, 16, 19)
    assert_masked_is_pruned(other, small, inputs)
    assert ranp.verify(other, plan, inputs).status == "exact"


@pytest.mark.parametrize(
    "other",
    [
        lambda: UNet3D(1, 5, width=8),
        lambda: UNet3D(1, 5, width=6, levels=3),
        lambda: nn.Sequential(UNet3D(1, 5, width=6)),
        lambda: CASES["plain"].build(),
        lambda: nn.Identity(),
    ],
)
def test_a_plan_for_another_model_is_refused(other: Any) -> None:
    plan = random_plan(ranp.trace(UNet3D(1, 5, width=6), torch.zeros(1, 1, 16, 16, 16)), 0, 0.2)
    for use in (lambda: ranp.apply(other(), plan), lambda: ranp.verify(other(), plan, torch.zeros(1, 1, 16, 16, 16))):
        with pytest.raises(PlanError, match=r"^apply.*got .*expected .*; (build the model as|the plan was made for)"):
            use()


def test_a_plan_is_not_applied_twice() -> None:
    model, plan = halved("plain")
    with pytest.raises(PlanError, match=r"apply: first.weight: got shape .*expected size 6 along dimension 0"):
        ranp.apply(ranp.apply(model, plan), plan)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model, plan = halved("plain")
    model.kept = threading.Lock()
    with pytest.raises(TraceError, match=r"^model: holds something that cannot be copied"):
        ranp.apply(model, plan)


def test_a_plan_from_json_does_the_same() -> None:
    model, plan = halved("nested_concatenation")
    small, again = ranp.apply(model, plan), ranp.apply(model, Plan.from_json(plan.to_json()))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in small.state_dict().items())
    assert_masked_is_pruned(copy.deepcopy(model), again, in_double(CASES["nested_concatenation"].inputs()))


def test_tensors_in_ordinary_attributes_are_cut_and_in_no_state_dict() -> None:
    model, plan = halved("positions_in_an_attribute")
    small, kept = ranp.apply(model, plan), list(plan.keep["body"])
    assert torch.equal(small.waves.waves, model.waves.waves[:, kept])
    assert small.again is small.waves
    assert model.waves.waves.shape == (1, 4, 5, 5)
    assert small.state_dict().keys() == model.state_dict().keys()
    model.waves.waves = torch.zeros(1, 3, 5, 5)
    with pytest.raises(PlanError, match=r"waves.waves.*expected size 4 along dimension 1"):
        ranp.apply(model, plan)
    del model.waves.waves
    with pytest.raises(PlanError, match=r"a model without 'waves.waves'"):
        ranp.apply(model, plan)


def test_what_a_forward_remembers_in_an_attribute_makes_no_other_model() -> None:
    def run(net: Any, x: torch.Tensor) -> torch.Tensor:
        net.seen = net.body(x).relu()
        return net.head(net.seen)  # type: ignore[no-any-return]

    model = Net(run, body=nn.Conv2d(3, 6, 1), head=nn.Conv2d(6, 2, 1))
    x = image(2, 3, 5, 5)()
    fresh = random_plan(ranp.trace(model, x), 0, 0.5)
    model(x)
    used = random_plan(ranp.trace(model, x), 0, 0.5)
    assert used == fresh
    assert ranp.apply(model, fresh).head.in_channels == len(fresh.keep["body"])


def test_sizes_that_a_module_keeps_as_numpy_integers_are_set() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Flatten(), nn.Linear(np.prod([6, 4, 4]), 2))
    plan = random_plan(ranp.trace(model, torch.zeros(1, 3, 4, 4)), 0, 0.5)
    assert ranp.apply(model, plan)[2].in_features == 16 * plan.widths["0"]


MEMORY = """
import torch
from torch import nn
import ranp
from ranp.costs.measure import resident_bytes

def decide(width):
    body = [nn.Conv2d(width, width, 3) for _ in range(2)]
    model = nn.Sequential(nn.Conv2d(3, width, 1), *body, nn.Conv2d(width, 2, 1))
    before = resident_bytes(peak=True)
    graph = ranp.trace(model, torch.zeros(1, 3, 8, 8))
    plan = ranp.allocate(graph, ranp.score(model, graph, [], criterion="uniform"), ranp.Budget(macs=0.5))
    small = ranp.apply(model, plan)
    grown = resident_bytes(peak=True) - before
    return grown / sum(4 * parameter.numel() for parameter in model.parameters())

decide(8)
print(decide(1536))
"""


def test_deciding_and_cutting_takes_no_more_memory_than_the_model_itself() -> None:
    """With the model it is less than twice the model's own, in a process of its own: peaks are never forgotten."""
    found = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    assert 0.3 < float(found.stdout) < 1


@pytest.mark.parametrize(
    ("dims", "memory_format"),
    [(2, torch.channels_last), (3, torch.channels_last_3d), (2, torch.contiguous_format), (3, torch.contiguous_format)],
)
def test_the_memory_format_stays(dims: int, memory_format: torch.memory_format) -> None:
    kind = (nn.Conv2d, nn.Conv3d)[dims - 2]
    model = nn.Sequential(kind(3, 8, 3), nn.ReLU(), kind(8, 6, 1), nn.ReLU(), kind(6, 2, 3))
    model = model.to(memory_format=memory_format)
    inputs = image(2, 3, *(9,) * dims)()
    small = ranp.apply(model, random_plan(ranp.trace(model, inputs), 0, 0.5))
    for before, after in zip(model.parameters(), small.parameters(), strict=True):
        assert before.shape != after.shape or after.numel() <= 2
        order, other = (sorted(range(t.ndim), key=t.stride, reverse=True) for t in (before, after))
        assert order == other
        if after.ndim > 2:
            assert after.is_contiguous(memory_format=memory_format)
