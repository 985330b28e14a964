"""Metrics on torchmetrics: they accumulate over batches, devices and processes.

torchmetrics and MONAI are optional packages: import this module inside functions.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from monai.metrics import compute_dice
from torch import Tensor
from torchmetrics import Metric


class _Ratios(Metric):
    """A metric that consists of ratios of sums over samples; higher is better."""

    full_state_update = False
    higher_is_better = True
    numerator: Tensor
    denominator: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        for name in ("numerator", "denominator"):
            self.add_state(name, torch.zeros(count, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, numerator: Tensor, denominator: Tensor) -> None:
        self.numerator += numerator.to(self.numerator)
        self.denominator += denominator.to(self.denominator)


class RegionDice(_Ratios):
    """Dice of regions, each a union of classes, averaged over cases or pooled over all voxels.

    The Dice of a region is 2 |A and B| / (|A| + |B|); it is 1 where the region is neither present nor predicted, as
    in the BraTS challenge.

    Args:
        regions: Name of each region and the classes it consists of.
        pooled: Whether to compute one Dice over the voxels of all inputs, for inputs that are pieces of one volume,
            instead of the mean over inputs, for inputs that are one case each.
    """

    def __init__(self, regions: Mapping[str, Sequence[int]], *, pooled: bool = False) -> None:
        super().__init__(len(regions))
        self.regions = {name: tuple(classes) for name, classes in regions.items()}
        self.pooled = pooled

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add cases: one score per class, `(N, classes, D, H, W)`, and classes, `(N, D, H, W)`."""
        predicted, truth = self._masks(outputs.argmax(1)), self._masks(targets)
        if self.pooled:
            overlap, total = (predicted & truth).transpose(0, 1), (predicted.long() + truth.long()).transpose(0, 1)
            self.add(2 * overlap.flatten(1).sum(1), total.flatten(1).sum(1))
        else:
            dice = compute_dice(predicted, truth, ignore_empty=False).double().sum(0)
            self.add(dice, torch.full_like(dice, len(targets)))

    def compute(self) -> dict[str, Tensor]:
        """The Dice of each region, and their mean."""
        # Without a voxel, predicted or not, a pooled region is a perfect one.
        dice = torch.where(self.denominator == 0, 1.0, self.numerator / self.denominator)
        return {"dice": dice.mean(), **{f"dice/{name}": dice[index] for index, name in enumerate(self.regions)}}

    def _masks(self, labels: Tensor) -> Tensor:
        masks = [torch.isin(labels, labels.new_tensor(classes)) for classes in self.regions.values()]
        return torch.stack(masks, dim=1)


class PartIoU(_Ratios):
    """Intersection over union of parts, in the convention usual for ShapeNet.

    Only the parts of the shape's own category, which is that of its targets, can be predicted, and only occupied voxels
    count. The IoU of a shape is the mean over all parts of its category; a part that is neither present nor
    predicted has an IoU of 1. `iou` is the mean over all shapes (*instance mean*), `iou/categories` the mean over
    categories of the mean over their shapes (*class mean*).

    Args:
        parts: Number of parts of each category; class indices continue from one category to the next.
        names: Names of the categories.
    """

    def __init__(self, parts: Sequence[int], names: Sequence[str]) -> None:
        super().__init__(len(parts) + 1)  # IoU over shapes for each category; and correct voxels over all.
        self.parts, self.names = tuple(parts), tuple(names)
        self.first = tuple(accumulate(self.parts, initial=0))

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add shapes: one score per part, `(N, parts, D, H, W)`, and parts, `(N, D, H, W)`, negative where empty."""
        for scores, truth in zip(outputs, targets, strict=True):
            occupied = truth >= 0
            truth = truth[occupied]
            if not len(truth):
                continue
            category = next(index for index in range(len(self.parts)) if truth[0] < self.first[index + 1])
            first, last = self.first[category : category + 2]
            predicted = scores[first:last, occupied].argmax(0) + first
            iou = _mean_iou(predicted - first, truth - first, last - first)
            self.numerator[[category, -1]] += torch.stack([iou, (predicted == truth).sum()]).to(self.numerator)
            self.denominator[[category, -1]] += self.denominator.new_tensor([1, len(truth)])

    def compute(self) -> dict[str, Tensor]:
        """Mean IoU over shapes, over categories and of each category, and the accuracy of occupied voxels."""
        (*ratios, accuracy), shapes = self.numerator / self.denominator, self.denominator[:-1]
        iou = {name: ratio for name, ratio, count in zip(self.names, ratios, shapes, strict=True) if count}
        return {
            "iou": self.numerator[:-1].sum() / shapes.sum(),
            "iou/categories": torch.stack(list(iou.values())).mean() if iou else accuracy,
            "accuracy": accuracy,
            **{f"iou/{name}": value for name, value in iou.items()},
        }


def _mean_iou(predicted: Tensor, truth: Tensor, parts: int) -> Tensor:
    confusion = torch.bincount(truth * parts + predicted, minlength=parts**2).reshape(parts, parts).double()
    intersection = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0).mean()


class ClipAccuracy(_Ratios):
    """Top-1 and top-5 accuracy of videos and of single clips.

    The scores of a video are the mean probabilities of its clips. With fewer than five classes, top-5 is 1.
    """

    def __init__(self) -> None:
        super().__init__(4)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add videos: one score per class, `(N, clips, classes)`, and classes, `(N,)`."""
        by_video = outputs.softmax(-1).mean(1), targets
        by_clip = outputs.flatten(0, 1), targets.repeat_interleave(outputs.shape[1])
        found = [_in_top(k, *pair) for pair in (by_video, by_clip) for k in (1, 5)]
        self.add(torch.stack([hits.sum() for hits in found]), torch.tensor([len(hits) for hits in found]))

    def compute(self) -> dict[str, Tensor]:
        """The four accuracies."""
        return dict(zip(("top1", "top5", "clip_top1", "clip_top5"), self.numerator / self.denominator, strict=True))


def _in_top(k: int, scores: Tensor, targets: Tensor) -> Tensor:
    """Whether the target is among the k highest scores, for each row."""
    best = scores.topk(min(k, scores.shape[-1])).indices
    return (best == targets[:, None]).any(1)
