"""The networks of the source paper, each a plain `torch.nn.Module` that knows nothing of pruning."""

from .unet3d import UNet3D

__all__ = ["UNet3D"]
