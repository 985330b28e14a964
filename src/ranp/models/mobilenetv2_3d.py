"""MobileNetV2 (Sandler et al., CVPR 2018) inflated to three dimensions, as in Xu et al., RANP, 3DV 2020."""

from itertools import repeat

from torch import Tensor, nn

# Expansion, width, repetitions and first stride of each stage of inverted residuals.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280


class MobileNetV2(nn.Module):
    """MobileNetV2 for video: 53 layers, all but the last without bias and followed by batch norm.

    The stem halves height and width; later strides halve time as well. Layers are called `stem.conv`,
    `blocks.0.depthwise.conv`, `blocks.0.project.conv`, `blocks.1.expand.conv`, ..., `last.conv`, `head`.

    Args:
        in_channels: Channels of the clip.
        num_classes: Classes.
        dropout: Probability of dropout before the linear layer.

    Example:
        >>> import torch
        >>> MobileNetV2(num_classes=5)(torch.zeros(2, 3, 8, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 101, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = _Unit(in_channels, _STEM, 3, stride=(1, 2, 2))
        blocks, width = [], _STEM
        for expansion, out_width, count, first in _STAGES:
            for stride in (first, *repeat(1, count - 1)):
                blocks.append(_InvertedResidual(width, out_width, expansion, stride))
                width = out_width
        self.blocks = nn.Sequential(*blocks)
        self.last = _Unit(width, _LAST, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_LAST, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of a clip `(N, in_channels, T, H, W)`."""
        features = self.last(self.blocks(self.stem(x)))
        logits: Tensor = self.head(self.dropout(features.mean((2, 3, 4))))
        return logits


class _Unit(nn.Sequential):
    """Convolution without bias, batch norm and, unless `activate` is False, ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int | tuple[int, int, int] = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm3d(out_channels)
        if activate:
            self.act = nn.ReLU6(inplace=True)


class _InvertedResidual(nn.Module):
    """Expand, convolve depthwise, project; with the identity added where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.expand = _Unit(in_channels, middle, 1) if expansion > 1 else None
        self.depthwise = _Unit(middle, middle, 3, stride, groups=middle)
        self.project = _Unit(middle, out_channels, 1, activate=False)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return x + out if self.residual else out
