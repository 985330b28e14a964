"""Every network of the zoo whose package is installed: pruned, proven, counted, and trained for a step."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import ranp
from families import FAMILIES, Member, uncovered
from helpers.oracles import counted_macs, random_scores
from ranp.errors import TraceError
from ranp.module_utils import call_model, tensors_in

BUDGET = 0.25

# What cannot be pruned, with words of the reason.
REFUSED = {
    **dict.fromkeys(
        [f"{kind} {dims}D" for kind in ("PatchDiscriminator", "MultiScalePatchDiscriminator") for dims in (2, 3)],
        "is an output of the model",
    ),
    "VISTA3D, points": "depends on the data",
}
# Norms that mix channels, or (the last two) a forward that insists on float32.
STRUCTURAL = ("VISTA3D, classes", "SwinUNETR", "conditioned", "Primus", "GlobalNet", "VQVAE")


def networks() -> Iterator[Any]:
    for family in FAMILIES:
        try:
            members = family.members()
        except ImportError as error:
            yield pytest.param(None, id=family.name, marks=pytest.mark.skip(reason=str(error)))
            continue
        for member in members:
            yield pytest.param(member, id=f"{family.name}: {member.name}")


@pytest.mark.filterwarnings("ignore::UserWarning")  # the networks' own
@pytest.mark.parametrize("member", list(networks()))
def test_pruned_proven_and_trained(member: Member) -> None:
    model, inputs = member.build().eval(), member.inputs()
    if member.name in REFUSED:
        with pytest.raises(TraceError, match=REFUSED[member.name]):
            ranp.prune(model, inputs, [], criterion="random", budget=ranp.Budget(macs=BUDGET))
        return
    graph = ranp.trace(model, inputs)
    least = graph.cost([1] * len(graph.groups)).macs / graph.cost().macs
    plan = ranp.allocate(graph, random_scores(graph, 0), ranp.Budget(macs=max(BUDGET, least)))
    structural = any(words in member.name for words in STRUCTURAL)
    assert ranp.verify(model, plan, inputs).status == ("structural" if structural else "exact")

    small = ranp.apply(model, plan)
    if not member.attention:  # torch's counter does not know fused attention
        assert plan.cost.macs == counted_macs(small, inputs)
    again = ranp.apply(member.build(), plan)
    again.load_state_dict(copy.deepcopy(small).state_dict())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in small.state_dict().items())
    train_a_step(small, inputs)


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


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_network_of_monai_is_in_the_zoo() -> None:
    assert uncovered() == set()
