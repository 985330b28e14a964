"""The networks of the source paper, each a plain `torch.nn.Module` that knows nothing of pruning."""

from .i3d import I3D
from .mobilenetv2_3d import MobileNetV2
from .unet3d import UNet3D

__all__ = ["I3D", "MobileNetV2", "UNet3D"]
