"""The 3D U-Net of Xu et al., RANP, 3DV 2020: 15 convolutions with four levels, 23 with six; or the same in 2D."""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LAYERS: dict[int, tuple[Any, Any, Any]] = {
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d),
    3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d),
}
"""Convolution, norm and pooling, by dimensions."""


class UNet3D(nn.Module):
    """A 3D U-Net whose convolutions have no bias and are each followed by batch norm and ReLU.

    Level i of the encoder has two 3x3x3 convolutions, the first to half of `width * 2**i` channels
    (never fewer than it receives), the second to `width * 2**i`; max pooling halves the volume between
    levels. The decoder upsamples to the skip's size, concatenates skip first, and convolves twice at the
    skip's width. A 1x1x1 convolution with bias makes the logits.

    The layers are called `encoder.0.conv1`, `encoder.0.conv2`, ..., `decoder.0.conv1` (the deepest), ...,
    `head`. Forward reads no channel numbers, so pruned layers fit without a change.

    Args:
        in_channels: channels of the input volume.
        out_channels: classes, the channels of the logits.
        width: channels of the first level.
        levels: encoder levels, so `4 * levels - 1` convolutions.
        dimensions: 3 for volumes; 2 for images `(N, C, H, W)`, with 3x3 convolutions.

    Raises:
        ValueError: an argument that is not a positive integer, or an input volume that is not
            `(N, in_channels, D, H, W)` or is too small to be halved `levels - 1` times.

    Example:
        >>> network = UNet3D(in_channels=4, out_channels=5, width=8)
        >>> network(torch.zeros(1, 4, 9, 16, 8)).shape
        torch.Size([1, 5, 9, 16, 8])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 50,
        width: int = 64,
        levels: int = 4,
        dimensions: Literal[2, 3] = 3,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "width": width, "levels": levels}
        for name, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"UNet3D: {name} must be an integer of at least 1, got {size!r}")
        if dimensions not in (2, 3):
            raise ValueError(f"UNet3D: dimensions must be 2 or 3, got {dimensions!r}")
        self.levels, self.dimensions = levels, dimensions
        convolution, _, pool = _LAYERS[dimensions]
        widths = [width * 2**level for level in range(levels)]
        self.encoder = nn.ModuleList(
            _DoubleConv(before, max(after // 2, before), after, dimensions)
            for before, after in pairwise([in_channels, *widths])
        )
        self.pools = nn.ModuleList(pool(2) for _ in widths[1:])
        self.decoder = nn.ModuleList(
            _DoubleConv(skip + below, skip, skip, dimensions) for below, skip in pairwise(reversed(widths))
        )
        self.head = convolution(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, out_channels, D, H, W)` of a volume `(N, in_channels, D, H, W)`."""
        least = 2 ** (self.levels - 1)
        if len(x.shape) != 2 + self.dimensions or min(x.shape[2:]) < least:
            what = "a volume (N, C, D, H, W)" if self.dimensions == 3 else "an image (N, C, H, W)"
            raise ValueError(
                f"UNet3D: expected {what} of at least {least} voxels a side, which "
                f"{self.levels} levels can halve {self.levels - 1} times, got shape {tuple(x.shape)}"
            )
        skips = [self.encoder[0](x)]
        for pool, block in zip(self.pools, self.encoder[1:], strict=True):
            skips.append(block(pool(skips[-1])))
        x = skips.pop()
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, size=skip.shape[2:], mode="nearest")], dim=1))
        logits: Tensor = self.head(x)
        return logits


class _DoubleConv(nn.Sequential):
    """Two convolutions of 3 voxels a side, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, middle: int, out_channels: int, dimensions: int) -> None:
        super().__init__()
        convolution, norm, _ = _LAYERS[dimensions]
        self.conv1 = convolution(in_channels, middle, 3, padding=1, bias=False)
        self.norm1 = norm(middle)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = convolution(middle, out_channels, 3, padding=1, bias=False)
        self.norm2 = norm(out_channels)
        self.relu2 = nn.ReLU(inplace=True)
