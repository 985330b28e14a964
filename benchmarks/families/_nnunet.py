"""nnU-Net: the networks of dynamic-network-architectures, as nnU-Net configures them, only less wide."""

from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from families._member import Member, Pick, full_size, noise, small_size, volume

Options = dict[str, Any]

_SIDES = {3: 32, 2: 64}


def members(pick: Pick = full_size) -> tuple[Member, ...]:
    """All networks; Primus only with a timm that it runs with."""
    primus = _primus() if _timm_fits() else ()
    return (*_unets(pick), *_classifiers(pick), *primus)


def small_members() -> tuple[Member, ...]:
    """Narrow U-Nets on small inputs; classifiers, whose widths are fixed, in 2D."""
    return members(small_size)


def _timm_fits() -> bool:
    """The package asks for timm below 1.0.23, but its Primus does not run with 0.9 either."""
    try:
        release = tuple(int(part) for part in version("timm").split(".")[:3])
    except PackageNotFoundError:
        return False
    return (1, 0, 0) <= release < (1, 0, 23)


def _ops(dims: int) -> Options:
    """What nnU-Net's plans pass for the building blocks."""
    return {
        "conv_op": (nn.Conv2d, nn.Conv3d)[dims - 2],
        "norm_op": (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "conv_bias": True,
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def _unet(stages: int, dims: int, width: int, **options: Any) -> Options:
    """Arguments of a U-Net with widths doubling up to tenfold and strides of 2."""
    return {
        "input_channels": 1,
        "n_stages": stages,
        "features_per_stage": tuple(width * min(2**stage, 10) for stage in range(stages)),
        "kernel_sizes": 3,
        "strides": (1,) + (2,) * (stages - 1),
        "num_classes": 3,
        "n_conv_per_stage_decoder": 1,
        **_ops(dims),
        **options,
    }


def _unets(pick: Pick) -> Iterator[Member]:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet, ResidualUNet

    stages, width = pick(5, 3), pick(32, 4)
    residual: Options = {"n_blocks_per_stage": pick((1, 3, 4, 6, 6), (1, 2, 2))}
    plain: Options = {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}
    for dims, side in pick(_SIDES, {3: 8, 2: 16}).items():
        image = noise(volume(1, side, dims))
        for label, deep in (("", False), (", deep supervision", True)):
            build = partial(PlainConvUNet, **_unet(stages, dims, width, deep_supervision=deep, **plain))
            yield Member(f"PlainConvUNet {dims}D{label}", build, image)
            build = partial(ResidualEncoderUNet, **_unet(stages, dims, width, deep_supervision=deep, **residual))
            yield Member(f"ResidualEncoderUNet {dims}D{label}", build, image)
    image = noise(volume(1, pick(32, 16), 3))
    build = partial(ResidualUNet, **_unet(4, 3, width, n_blocks_per_stage=2, deep_supervision=True))
    yield Member("ResidualUNet 3D, deep supervision", build, image)
    bottleneck: Options = {"n_blocks_per_stage": 2, "bottleneck_channels": pick((8, 16, 32, 64), (2, 4, 8, 16))}
    build = partial(ResidualEncoderUNet, **_unet(4, 3, width, **bottleneck))
    yield Member("ResidualEncoderUNet 3D, bottleneck blocks", build, image)
    uneven: Options = {
        "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
    }
    build = partial(PlainConvUNet, **_unet(4, 3, width, deep_supervision=True, **plain, **uneven))
    yield Member("PlainConvUNet 3D, anisotropic", build, image)


def _classifiers(pick: Pick) -> Iterator[Member]:
    from dynamic_network_architectures.architectures.resnet import ResNet18, ResNet50, ResNet50bn
    from dynamic_network_architectures.architectures.vgg import VGG16

    for dims, side in pick(_SIDES, {2: 32}).items():
        image = noise((2, *volume(3, side, dims)[1:]))
        for network in (ResNet18, ResNet50, ResNet50bn):
            yield Member(f"{network.__name__} {dims}D", partial(network, 10, 3, dims), image)
        squeezed = partial(ResNet18, 10, 3, dims, squeeze_excitation=True)
        yield Member(f"ResNet18 {dims}D, squeeze and excitation", squeezed, image)
        yield Member(f"VGG16 {dims}D", partial(VGG16, 10, 3, dims), image)


def _primus() -> Iterator[Member]:
    from dynamic_network_architectures.architectures.primus import PrimusS, PrimusV2S, PrimusV3S

    for network in (PrimusS, PrimusV2S, PrimusV3S):
        build = partial(network, 1, 2, (8, 8, 8), (32, 32, 32))
        yield Member(f"{network.__name__} 3D", build, noise(volume(1, 32, 3)), attention=True)
