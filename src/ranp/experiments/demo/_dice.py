"""Predicted classes and their overlap with the truth."""

import torch
from torch import Tensor, nn


def predict(model: nn.Module, inputs: Tensor, *, batch: int = 1) -> Tensor:
    """Most probable class of every voxel, in evaluation mode and without gradients.

    Args:
        model: Gives logits `(N, classes, ...)`; its modes are put back afterwards.
        inputs: `(N, channels, ...)`, on any device.
        batch: Inputs per forward pass.

    Returns:
        Class indices `(N, 1, ...)` on the CPU.
    """
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            parts = [model(part.to(device)).argmax(1, keepdim=True).cpu() for part in inputs.split(batch)]
    finally:
        for module, training in modes.items():
            module.training = training
    return torch.cat(parts)


def dice_scores(predicted: Tensor, truth: Tensor, classes: int) -> list[float]:
    """Dice of every class over all voxels pooled: 2 |A and B| / (|A| + |B|), 1 where both are empty.

    Args:
        predicted: Class indices, any shape.
        truth: Class indices, same shape.
        classes: Number of classes.

    Returns:
        One score in [0, 1] per class.

    Example:
        >>> dice_scores(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), classes=3)
        [0.6666666666666666, 0.8, 1.0]
    """
    pairs = torch.bincount((truth * classes + predicted).flatten(), minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    both = 2 * confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1)
    return [int(b) / int(e) if e else 1.0 for b, e in zip(both, either, strict=True)]
