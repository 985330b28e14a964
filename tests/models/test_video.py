"""Tracing and pruning of the two video networks."""

import pytest
import torch
from torch import nn

import ranp
from ranp.models import I3D, MobileNetV2

CLIP = (1, 3, 16, 112, 112)


@pytest.mark.parametrize(("model", "shape", "layers"), [(MobileNetV2(), CLIP, 53), (I3D(), (1, 3, 16, 224, 224), 58)])
def test_all_layers_but_the_last_can_be_pruned(model: nn.Module, shape: tuple[int, ...], layers: int) -> None:
    graph = ranp.trace(model, torch.zeros(1).expand(shape))
    assert len(graph.layers) == layers
    assert [layer.name for layer in graph.layers if not layer.prunable] == ["head"]


def test_residual_and_depthwise_channels_are_coupled() -> None:
    """Stage by stage: the layers of a residual chain are one group, and so are an expansion and its depthwise layer."""
    graph = ranp.trace(MobileNetV2(), torch.zeros(1).expand(CLIP))
    together = {
        frozenset(
            layer.name
            for layer in graph.layers
            if layer.prunable and graph.group_of[layer.channels[layer.channels >= 0]][0] == index
        )
        for index in range(len(graph.groups))
    }
    assert frozenset({"blocks.3.project.conv", "blocks.4.project.conv", "blocks.5.project.conv"}) in together
    assert frozenset({"blocks.1.expand.conv", "blocks.1.depthwise.conv"}) in together
    assert frozenset({"stem.conv", "blocks.0.depthwise.conv"}) in together
    assert frozenset({"last.conv"}) in together


def test_a_pruned_mobilenet_is_verified() -> None:
    model, clip = MobileNetV2(num_classes=5), torch.zeros(1, 3, 8, 32, 32)
    result = ranp.prune(model, clip, [], budget=ranp.Budget(macs=0.3), criterion="random")
    assert result.verification.status == "exact"
    assert result.plan.cost.macs <= 0.3 * result.plan.full_cost.macs
