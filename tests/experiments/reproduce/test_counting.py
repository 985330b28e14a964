import numpy as np
import pytest
import torch
from torch import nn

import ranp
from ranp.errors import InputError
from ranp.experiments.reproduce.counting import PublishedResources, published_resources
from ranp.experiments.reproduce.networks import NETWORKS
from ranp.experiments.reproduce.resources import prune
from ranp.experiments.reproduce.selection import Evidence, couple, select
from ranp.graph import ChannelGraph, Layer
from ranp.models import MobileNetV2, UNet3D


def printed(resources: PublishedResources) -> tuple[str, str, str]:
    return tuple(f"{value:.2f}" for value in (resources.params_mb, resources.gflops, resources.memory_mb))


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("shapenet", ("62.26", "237.85", "997.00")),
        ("brats", ("15.57", "478.13", "3628.00")),
        ("mobilenetv2", ("9.47", "0.58", "157.47")),
        ("i3d", ("47.27", "27.88", "201.28")),
    ],
)
def test_full_networks_read_the_printed_digits(name: str, full: tuple[str, str, str]) -> None:
    with torch.device("meta"):
        model = NETWORKS[name].build()
    assert printed(NETWORKS[name].resources(model)) == full
    assert printed(NETWORKS[name].published["full"]) == full


LAYERWISE = {
    "shapenet": ("2.99", "11.63", "296.22"),
    "brats": ("0.75", "24.09", "836.88"),
    "i3d": ("26.67", "16.93", "150.95"),
}


@pytest.mark.parametrize("name", LAYERWISE)
def test_layerwise_pruning_reads_the_printed_digits(name: str) -> None:
    """It does not depend on data: any importance gives the same widths."""
    spec = NETWORKS[name]
    model = spec.build()
    graph = ranp.trace(model, torch.zeros(1).expand(spec.input_shape))
    importance = {layer.name: np.arange(1.0, 1 + layer.width) for layer in graph.layers}
    saliency = {layer.name: np.ones((layer.width, _inputs(graph, layer), 1), np.float32) for layer in graph.layers}
    evidence = Evidence(graph, importance, saliency, spec.resource_weight, seed=0)
    selection = select("layerwise", evidence, spec.sparsity)
    assert not selection.emptied
    assert printed(spec.resources(prune(model, selection.kept, evidence, spec.sparsity))) == LAYERWISE[name]
    assert printed(spec.published["layerwise"]) == LAYERWISE[name]


def test_coupled_neurons_share_one_score() -> None:
    graph = ranp.trace(MobileNetV2(num_classes=3), torch.zeros(1, 3, 4, 32, 32))
    scores = {layer.name: np.arange(1.0, 1 + layer.width) for layer in graph.layers}
    found = couple(graph, scores)
    expected = 2 * np.arange(1.0, 97)  # the expansion and its depthwise layer
    assert found["blocks.1.expand.conv"].tolist() == found["blocks.1.depthwise.conv"].tolist() == expected.tolist()
    assert found["head"].tolist() == scores["head"].tolist()
    assert found["last.conv"].tolist() == scores["last.conv"].tolist()


def _inputs(graph: ChannelGraph, layer: Layer) -> int:
    return graph.shapes[layer.weight][1 - layer.out_dim]


def count(module: nn.Module, *shape: int) -> tuple[int, int, int]:
    found = published_resources(module, shape)
    return (
        round(found.params_mb * 2**20 / 4),
        round(found.gflops * 1e9),
        round(found.memory_mb * 2**20 / 4),
    )


@pytest.mark.parametrize(
    ("module", "shape", "params", "macs", "elements"),
    [
        # Outputs x (inputs per group x kernel + bias).
        (nn.Conv3d(4, 6, 3, bias=False), (1, 4, 5, 5, 5), 6 * 4 * 27, 27 * 6 * 4 * 27, 27 * 6),
        (nn.Conv3d(4, 6, (1, 3, 3), stride=2), (1, 4, 5, 5, 5), 6 * 37, 3 * 2 * 2 * 6 * 37, 3 * 2 * 2 * 6),
        (nn.Conv3d(4, 8, 3, groups=4, padding=1), (1, 4, 2, 2, 2), 8 * 28, 64 * 28, 64),
        (nn.BatchNorm3d(3), (1, 3, 2, 2, 2), 6, 4 * 24, 24),
        (nn.AvgPool3d((2, 3, 3), stride=1), (1, 2, 3, 3, 3), 0, 2 * 2 * (18 + 1), 4),
        (nn.AvgPool3d(2), (1, 2, 4, 4, 4), 0, 16 * (8 + 1), 16),
        (nn.Linear(5, 7), (1, 5), 42, 7 * 10, 7),
        (nn.Linear(5, 7, bias=False), (1, 5), 35, 7 * 9, 7),
        (nn.MaxPool3d(2), (1, 2, 4, 4, 4), 0, 0, 16),
        (nn.Upsample(scale_factor=2), (1, 2, 1, 1, 1), 0, 0, 16),
        (nn.ReLU(), (1, 5), 0, 0, 5),
        (nn.ReLU6(), (1, 5), 0, 0, 5),
        (nn.Dropout(), (1, 5), 0, 0, 5),
        (nn.Softmax(dim=1), (1, 5), 0, 0, 5),
    ],
)
def test_every_kind_of_module_as_worked_out_by_hand(
    module: nn.Module, shape: tuple[int, ...], params: int, macs: int, elements: int
) -> None:
    assert count(module, *shape) == (params, macs, elements)
    assert count(nn.Sequential(module, nn.ReLU()), *shape) == (params, macs, 2 * elements)


def test_tied_parameters_count_once_and_modules_as_often_as_they_run() -> None:
    layer = nn.Linear(3, 3)
    assert count(nn.Sequential(layer, layer), 1, 3) == (12, 2 * 18, 6)


@pytest.mark.parametrize("module", [nn.PReLU(), nn.ConvTranspose3d(2, 2, 2), nn.Upsample(mode="trilinear", size=4)])
def test_modules_that_the_tables_do_not_define_are_refused(module: nn.Module) -> None:
    with pytest.raises(InputError, match=type(module).__name__):
        published_resources(nn.Sequential(module), (1, 2, 2, 2, 2))


@pytest.mark.parametrize("shape", [(1, 1, 16, 16, 16), (1, 2, 16, 16, 16)])
def test_the_model_stays_as_it_was(shape: tuple[int, ...]) -> None:
    network = UNet3D(width=2)
    network.encoder[0].norm1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    try:
        published_resources(network, shape)
    except RuntimeError:
        assert shape[1] == 2
    else:
        assert shape[1] == 1
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_single_voxels_are_counted_although_batch_norm_cannot_train_on_them() -> None:
    network = UNet3D(width=2, levels=2).train()
    # Outputs: 8 voxels x (3 x (1 + 2 + 2 + 2) of the blocks + 50 of the head), 3 x (2 + 4) below, 2 pooled.
    assert count(network, 1, 1, 2, 2, 2)[2] == 8 * (3 * 7 + 50) + 3 * 6 + 2
