import pytest
import torch
from torch import nn

from ranp.models import UNet3D


def convolutions(network: nn.Module) -> dict[str, nn.Conv3d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv3d)}


FOUR = [32, 64, 64, 128, 128, 256, 256, 512, 256, 256, 128, 128, 64, 64, 50]
SIX = [*FOUR[:8], 512, 1024, 1024, 2048, 1024, 1024, 512, 512, *FOUR[8:]]


@pytest.mark.parametrize(("levels", "widths"), [(4, FOUR), (6, SIX)])
def test_has_the_published_layers(levels: int, widths: list[int]) -> None:
    with torch.device("meta"):
        layers = convolutions(UNet3D(levels=levels))
    assert [layer.out_channels for layer in layers.values()] == widths
    assert next(iter(layers)) == "encoder.0.conv1"
    assert list(layers)[-1] == "head"
    assert {name for name, layer in layers.items() if layer.bias is not None} == {"head"}
    assert {layer.kernel_size for layer in layers.values()} == {(3, 3, 3), (1, 1, 1)}
    assert layers["head"].kernel_size == (1, 1, 1)


def test_first_layer_is_never_narrower_than_the_input() -> None:
    assert convolutions(UNet3D(in_channels=7, width=8))["encoder.0.conv1"].out_channels == 7
    assert convolutions(UNet3D(in_channels=3, width=8))["encoder.0.conv1"].out_channels == 4


def test_every_convolution_but_the_last_has_batch_norm_and_relu() -> None:
    network = UNet3D(width=2)
    for name in convolutions(network):
        if name != "head":
            assert isinstance(network.get_submodule(name.replace("conv", "norm")), nn.BatchNorm3d)
            assert isinstance(network.get_submodule(name.replace("conv", "relu")), nn.ReLU)


def by_hand(network: UNet3D, x: torch.Tensor) -> torch.Tensor:
    """Two levels, written as single operations."""

    def block(prefix: str, x: torch.Tensor) -> torch.Tensor:
        for i in (1, 2):
            conv, norm = (network.get_submodule(f"{prefix}.{kind}{i}") for kind in ("conv", "norm"))
            x = torch.nn.functional.conv3d(x, conv.weight, padding=1)
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            shift = norm.bias - norm.running_mean * scale
            x = (x * scale.view(1, -1, 1, 1, 1) + shift.view(1, -1, 1, 1, 1)).clamp(min=0)
        return x

    skip = block("encoder.0", x)
    n, c, d, h, w = skip.shape
    halved = skip[..., : d // 2 * 2, : h // 2 * 2, : w // 2 * 2]
    pooled = halved.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2).amax((3, 5, 7))
    below = block("encoder.1", pooled)
    index = [torch.arange(full) * (full // 2) // full for full in (d, h, w)]
    upsampled = below[:, :, index[0]][:, :, :, index[1]][:, :, :, :, index[2]]
    x = block("decoder.0", torch.cat([skip, upsampled], dim=1))
    return torch.einsum("oi,nidhw->nodhw", network.head.weight[:, :, 0, 0, 0], x) + network.head.bias.view(
        1, -1, 1, 1, 1
    )


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_in_two_dimensions_it_is_the_network_of_a_single_plane(size: tuple[int, int]) -> None:
    """A plane between planes of zeros is multiplied only by the middle of each kernel, and its axis is never pooled."""
    flat = UNet3D(in_channels=2, out_channels=3, width=4, levels=1, dimensions=2).double().eval()
    deep = UNet3D(in_channels=2, out_channels=3, width=4, levels=1).double().eval()
    for layer, source in zip(deep.parameters(), flat.parameters(), strict=True):
        layer.data = source.data[:, :, None] if source.ndim == 4 else source.data
    for name, layer in convolutions(deep).items():
        if name != "head":
            layer.weight.data = nn.functional.pad(layer.weight.data, (0, 0, 0, 0, 1, 1))
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(flat(x), deep(x[:, :, None])[:, :, 0], rtol=1e-12, atol=1e-12)
    assert UNet3D(width=2, dimensions=2)(torch.zeros(2, 1, 8, 12)).shape == (2, 50, 8, 12)
    with pytest.raises(ValueError, match=r"an image \(N, C, H, W\) of at least 8 voxels"):
        UNet3D(width=2, dimensions=2)(torch.zeros(2, 1, 8, 8, 8))
    with pytest.raises(ValueError, match="dimensions must be 2 or 3, got 1"):
        UNet3D(dimensions=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(4, 4, 4), (5, 7, 6)])
def test_forward_equals_the_same_network_in_single_operations(size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = UNet3D(in_channels=2, out_channels=3, width=4, levels=2).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), by_hand(network, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("levels", "size"), [(1, (1, 2, 3)), (4, (8, 9, 15)), (6, (32, 33, 47))])
def test_logits_have_the_input_size(levels: int, size: tuple[int, int, int]) -> None:
    network = UNet3D(in_channels=1, out_channels=3, width=2, levels=levels).eval()
    assert network(torch.zeros(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"levels": -1}, {"in_channels": 1.5}, {"out_channels": True}, {"width": "64"}]
)
def test_bad_arguments_are_named(wrong: dict[str, int]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value!r}"):
        UNet3D(**wrong)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8, 7), (1, 8, 8, 8)])
def test_volumes_that_cannot_be_halved_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 8 voxels a side"):
        UNet3D(width=2)(torch.zeros(shape))
