"""The zoo: every network that can be built, pruned at full size without data; small ones proven and trained as well.

`make test` runs what is not marked `zoo`; `make test-zoo` proves and trains every network at full size.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

import ranp
from families import FAMILIES, Family, Member, uncovered
from helpers.oracles import EVERY_WIDTH, counted_macs, counted_params, random_scores, slow_attention
from ranp.errors import TraceError
from ranp.graph import ChannelGraph
from ranp.module_utils import call_model, tensors_in
from ranp.plan import Plan
from ranp.pruning import require_channels

BUDGET = 0.25

# What cannot be pruned, with words of the reason.
REFUSED = {
    **dict.fromkeys(
        [f"{kind} {dims}D" for kind in ("PatchDiscriminator", "MultiScalePatchDiscriminator") for dims in (2, 3)],
        "is an output of the model",
    ),
    "VISTA3D, points": "depends on the data",
}
# Their forward insists on float32.
STRUCTURAL = ("GlobalNet", "VQVAE")

Members = Callable[[], tuple[Member, ...]]


def networks(of: Callable[[Family], Members | None]) -> list[Any]:
    """One parameter per network; one that is skipped, with the reason, per package that is not installed."""
    return [parameter for family in FAMILIES if (found := of(family)) for parameter in _networks(family, found)]


def _networks(family: Family, found: Members) -> Iterator[Any]:
    try:
        for member in found():
            yield pytest.param(member, id=f"{family.name}: {member.name}")
    except ImportError as error:
        yield pytest.param(None, id=family.name, marks=pytest.mark.skip(reason=str(error)))


full_size = pytest.mark.parametrize("member", networks(lambda family: family.members))
small_size = pytest.mark.parametrize("member", networks(lambda family: family.small_members))
own_warnings = pytest.mark.filterwarnings("ignore::UserWarning")  # the networks' own


@own_warnings
@small_size
def test_small_networks_are_pruned_proven_and_trained(member: Member) -> None:
    prune_prove_and_train(member)


@own_warnings
@full_size
@pytest.mark.zoo
def test_full_size_networks_are_pruned_proven_and_trained(member: Member) -> None:
    prune_prove_and_train(member)


@own_warnings
@full_size
def test_full_size_networks_are_pruned_without_data(member: Member) -> None:
    """On the meta device, where the pruned forward computes shapes and torch counts multiply-adds."""
    model, inputs = without_data(member)
    if member.name in REFUSED:
        assert_refused(member, model, inputs)
        return
    plan = random_plan(ranp.trace(model, inputs))
    small = ranp.apply(model, plan)
    assert plan.cost.params == counted_params(small) < counted_params(model)
    with slow_attention(), FlopCounterMode(display=False) as counter:
        found = shapes(small, inputs)
    assert found == shapes(model, inputs)
    if not member.attention:  # torch's counter does not know fused attention
        assert 2 * plan.cost.macs == counter.get_total_flops()


@own_warnings
@pytest.mark.parametrize("size", ["members", "small_members"])
def test_every_network_of_monai_is_in_the_zoo(size: str) -> None:
    monai = next(family for family in FAMILIES if family.package == "monai")
    assert uncovered(getattr(monai, size)()) == set()


def prune_prove_and_train(member: Member) -> None:
    model, inputs = member.build().eval(), member.inputs()
    if member.name in REFUSED:
        assert_refused(member, model, inputs)
        return
    plan = random_plan(ranp.trace(model, inputs))
    structural = any(words in member.name for words in STRUCTURAL)
    assert ranp.verify(model, plan, inputs).status == ("structural" if structural else "exact")

    small = ranp.apply(model, plan)
    if not member.attention:
        assert plan.cost.macs == counted_macs(small, inputs)
    again = ranp.apply(member.build(), plan)
    again.load_state_dict(copy.deepcopy(small).state_dict())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in small.state_dict().items())
    train_a_step(small, inputs)


def assert_refused(member: Member, model: nn.Module, inputs: Any) -> None:
    with pytest.raises(TraceError, match=REFUSED[member.name]):
        require_channels(ranp.trace(model, inputs))


def random_plan(graph: ChannelGraph) -> Plan:
    """A plan within the budget, or the least that the network allows."""
    least = graph.cost([1] * len(graph.groups)).macs / graph.cost().macs
    return ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(macs=max(BUDGET, least)), **EVERY_WIDTH)


def without_data(member: Member) -> tuple[nn.Module, Any]:
    """The network and its inputs on the meta device; with data where the constructor or the forward reads values."""
    inputs = member.inputs()
    if "TopologyInstance" in member.name:
        return member.build().eval(), inputs
    try:
        with torch.device("meta"):
            model = member.build()
    except (NotImplementedError, RuntimeError):
        model = member.build().to("meta")
    return model.eval(), tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)


def shapes(model: nn.Module, inputs: Any) -> list[torch.Size]:
    with torch.no_grad():
        return [tensor.shape for tensor in tensors_in(call_model(model, inputs))]


def train_a_step(model: nn.Module, inputs: Any) -> None:
    """In training mode, on two samples: a norm of one value has no variance."""
    twice = tree_map_only(Tensor, lambda tensor: torch.cat([tensor, tensor]) if len(tensor) == 1 else tensor, inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    outputs = [tensor for tensor in tensors_in(call_model(model.train(), twice)) if tensor.requires_grad]
    sum((tensor * torch.randn_like(tensor)).mean() for tensor in outputs).backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert any(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
