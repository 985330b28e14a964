"""The networks of the source paper, each a plain `torch.nn.Module` that knows nothing of pruning."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from .i3d import I3D
from .mobilenetv2_3d import MobileNetV2
from .unet3d import UNet3D

__all__ = ["BUILT_IN", "I3D", "BuiltIn", "MobileNetV2", "UNet3D"]


@dataclass(frozen=True)
class BuiltIn:
    """A network that commands and recipes know by name.

    Attributes:
        build: The class or factory; it takes `in_channels` among others.
        classes: Its parameter for the number of classes.
        shape: The input shape that it is meant for.
    """

    build: Callable[..., nn.Module]
    classes: str
    shape: tuple[int, ...]


BUILT_IN = {
    "unet3d": BuiltIn(UNet3D, "out_channels", (1, 1, 64, 64, 64)),
    "unet3d-23": BuiltIn(partial(UNet3D, levels=6), "out_channels", (1, 1, 64, 64, 64)),
    "unet2d": BuiltIn(partial(UNet3D, dimensions=2), "out_channels", (1, 1, 64, 64)),
    "mobilenetv2": BuiltIn(MobileNetV2, "num_classes", (1, 3, 16, 112, 112)),
    "i3d": BuiltIn(I3D, "num_classes", (1, 3, 16, 224, 224)),
}
