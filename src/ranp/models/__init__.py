"""The networks of the source paper, each a plain `torch.nn.Module` that knows nothing of pruning."""

from .built_in import BUILT_IN, BuiltIn
from .i3d import I3D
from .mobilenetv2_3d import MobileNetV2
from .unet3d import UNet3D

__all__ = ["BUILT_IN", "I3D", "BuiltIn", "MobileNetV2", "UNet3D"]
