"""Networks whose training steps are predicted and measured: what a network costs depends on how it is built."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ranp.models import I3D, MobileNetV2, UNet3D


@dataclass(frozen=True)
class TrainingNetwork:
    """A network and the data that it is trained on.

    Attributes:
        name: Unique.
        build: Makes the network.
        shape: Of its inputs, with one sample.
        classes: Number of classes.
        segments: Whether there is a label for every voxel, not one for every sample.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    segments: bool = True

    def batch(self, samples: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Noise and random labels."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn((samples, *self.shape[1:]), generator=generator)
        positions = self.shape[2:] if self.segments else ()
        return inputs.to(device), torch.randint(self.classes, (samples, *positions), generator=generator).to(device)


class Checkpointed(nn.Module):
    """A block that runs again in the backward pass instead of keeping its activations."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(self.block, x, use_reentrant=False)
        return result


def checkpointed_unet(width: int) -> nn.Module:
    """A U-Net of checkpointed blocks."""
    network = UNet3D(1, 3, width=width)
    network.encoder = nn.ModuleList(map(Checkpointed, network.encoder))
    network.decoder = nn.ModuleList(map(Checkpointed, network.decoder))
    return network


def networks(side: int = 64) -> Iterator[TrainingNetwork]:
    """All networks, on volumes with this side; those of packages that are not installed are left out."""
    volume = (1, 1, side, side, side)
    yield TrainingNetwork("UNet3D, 15 layers", partial(UNet3D, 1, 3, width=16), volume, 3)
    deep = (1, 1, *(max(side, 64),) * 3)  # Smaller volumes are a single voxel at the lowest level.
    yield TrainingNetwork("UNet3D, 23 layers", partial(UNet3D, 1, 3, width=16, levels=6), deep, 3)
    yield TrainingNetwork("UNet3D, checkpointed", partial(checkpointed_unet, 16), volume, 3)
    clip = (1, 3, 16, 2 * side, 2 * side)
    yield TrainingNetwork("MobileNetV2-3D", partial(MobileNetV2, 3, 101), clip, 101, segments=False)
    large = (1, 3, 16, *(max(2 * side, 224),) * 2)  # It averages over 7 positions at a resolution of 1 / 32.
    yield TrainingNetwork("I3D", partial(I3D, 3, 101), large, 101, segments=False)
    for more in (_of_monai, _of_nnunet):
        try:
            yield from more(volume)
        except ImportError:
            continue


def _of_monai(volume: tuple[int, ...]) -> Iterator[TrainingNetwork]:
    from monai.networks import nets

    options: dict[str, Any] = {"kernel_size": (3,) * 4, "strides": (1, 2, 2, 2), "upsample_kernel_size": (2,) * 3}
    options |= {"filters": (16, 32, 64, 128), "res_block": True}
    yield TrainingNetwork("DynUNet, residual", partial(nets.DynUNet, 3, 1, 3, **options), volume, 3)
    yield TrainingNetwork("SegResNet", partial(nets.SegResNet, init_filters=16, out_channels=3), volume, 3)
    blocks: dict[str, Any] = {"blocks_down": (1, 1, 1, 1), "blocks_up": (1, 1, 1, 1), "blocks_bottleneck": 1}
    yield TrainingNetwork("MedNeXt", partial(nets.MedNeXt, init_filters=16, out_channels=3, **blocks), volume, 3)


def _of_nnunet(volume: tuple[int, ...]) -> Iterator[TrainingNetwork]:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    options: dict[str, Any] = {
        **{"input_channels": 1, "num_classes": 3, "n_stages": 4, "features_per_stage": (16, 32, 64, 128)},
        **{"conv_op": nn.Conv3d, "kernel_sizes": 3, "strides": (1, 2, 2, 2), "conv_bias": True},
        **{"norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True}},
        **{"nonlin": nn.LeakyReLU, "nonlin_kwargs": {"inplace": True}},
    }
    plain = partial(PlainConvUNet, n_conv_per_stage=2, n_conv_per_stage_decoder=2, **options)
    yield TrainingNetwork("nnU-Net, plain", plain, volume, 3)
    residual = partial(ResidualEncoderUNet, n_blocks_per_stage=(1, 3, 4, 4), n_conv_per_stage_decoder=1, **options)
    yield TrainingNetwork("nnU-Net, residual encoder", residual, volume, 3)
