"""I3D (Carreira and Zisserman, CVPR 2017): Inception-v1 inflated to three dimensions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Widths of the four branches of each Mixed block: 1x1x1 | 1x1x1, 3x3x3 | 1x1x1, 3x3x3 | pool, 1x1x1.
_MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """I3D for RGB video: 58 convolutions, all but the last without bias and followed by batch norm and ReLU.

    Layers are called `conv1.conv`, `conv2.conv`, `conv3.conv`, `mixed_3b.b0.conv`, `mixed_3b.b1a.conv`, ..., `head`.

    Args:
        in_channels: Channels of the clip.
        num_classes: Classes.
        dropout: Probability of dropout before the last convolution.

    Example:
        >>> I3D(num_classes=5)(torch.zeros(1, 3, 16, 224, 224)).shape
        torch.Size([1, 5])
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 101, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1 = _Unit(in_channels, 64, 7, 2)
        self.pool1 = _SamePool((1, 3, 3), (1, 2, 2))
        self.conv2 = _Unit(64, 64, 1)
        self.conv3 = _Unit(64, 192, 3)
        self.pool2 = _SamePool((1, 3, 3), (1, 2, 2))
        self.pool3 = _SamePool((3, 3, 3), (2, 2, 2))
        self.pool4 = _SamePool((2, 2, 2), (2, 2, 2))
        width = 192
        for name, widths in _MIXED.items():
            self.add_module(f"mixed_{name}", _Mixed(width, *widths))
            width = widths[0] + widths[2] + widths[4] + widths[5]
        self.average = nn.AvgPool3d((2, 7, 7), stride=1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Conv3d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of a clip `(N, in_channels, T, H, W)`, averaged over the remaining time."""
        x = self.conv3(self.conv2(self.pool1(self.conv1(x))))
        pools = {"3b": self.pool2, "4b": self.pool3, "5b": self.pool4}
        for name in _MIXED:
            if name in pools:
                x = pools[name](x)
            x = self.get_submodule(f"mixed_{name}")(x)
        logits: Tensor = self.head(self.dropout(self.average(x)))
        return logits.mean((2, 3, 4))


class _Unit(nn.Module):
    """Convolution with "same" padding and no bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(_pad(x, self.conv.kernel_size, self.conv.stride))))


class _SamePool(nn.Module):
    """Max pooling with "same" padding."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.pool = nn.MaxPool3d(kernel, stride)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(_pad(x, self.kernel, self.stride))
        return pooled


class _Mixed(nn.Module):
    """Four parallel branches, concatenated."""

    def __init__(self, in_channels: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3: int) -> None:
        super().__init__()
        self.b0 = _Unit(in_channels, b0, 1)
        self.b1a = _Unit(in_channels, b1a, 1)
        self.b1b = _Unit(b1a, b1b, 3)
        self.b2a = _Unit(in_channels, b2a, 1)
        self.b2b = _Unit(b2a, b2b, 3)
        self.pool = _SamePool((3, 3, 3), (1, 1, 1))
        self.b3 = _Unit(in_channels, b3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3(self.pool(x))], 1)


def _pad(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zero padding so that the output's size is the input's divided by the stride, rounded up.

    Where the amount is odd, the larger half comes at the end.
    """
    amounts: list[int] = []
    for size, window, step in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max((-(-size // step) - 1) * step + window - size, 0)
        amounts += [total // 2, total - total // 2]
    return F.pad(x, amounts)
