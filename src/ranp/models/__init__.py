"""The networks of the source paper, each a plain `torch.nn.Module` that knows nothing of pruning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from .i3d import I3D
    from .mobilenetv2_3d import MobileNetV2
    from .unet3d import UNet3D
else:
    # Imported when first used: the command line lists the networks without importing torch.
    _MODULES = {"I3D": "i3d", "MobileNetV2": "mobilenetv2_3d", "UNet3D": "unet3d"}

    def __getattr__(name: str):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return found


__all__ = ["BUILT_IN", "I3D", "BuiltIn", "MobileNetV2", "UNet3D"]


@dataclass(frozen=True)
class BuiltIn:
    """A network that commands and recipes know by name.

    Attributes:
        network: Module and name of its class, such as `unet3d:UNet3D`.
        classes: Its parameter for the number of classes.
        shape: The input shape that it is meant for.
        arguments: Arguments that differ from the defaults of the class.
    """

    network: str
    classes: str
    shape: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def build(self) -> "Callable[..., nn.Module]":
        """The factory; it takes `in_channels` among others."""
        module, _, name = self.network.partition(":")
        return partial(getattr(import_module(f"{__name__}.{module}"), name), **self.arguments)


BUILT_IN = {
    "unet3d": BuiltIn("unet3d:UNet3D", "out_channels", (1, 1, 64, 64, 64)),
    "unet3d-23": BuiltIn("unet3d:UNet3D", "out_channels", (1, 1, 64, 64, 64), {"levels": 6}),
    "unet2d": BuiltIn("unet3d:UNet3D", "out_channels", (1, 1, 64, 64), {"dimensions": 2}),
    "mobilenetv2": BuiltIn("mobilenetv2_3d:MobileNetV2", "num_classes", (1, 3, 16, 112, 112)),
    "i3d": BuiltIn("i3d:I3D", "num_classes", (1, 3, 16, 224, 224)),
}
