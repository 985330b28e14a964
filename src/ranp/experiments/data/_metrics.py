"""Figures of merit, on torchmetrics: they add up over batches, devices and processes.

Imported late, since torchmetrics and MONAI are extras.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from monai.metrics import compute_dice
from torch import Tensor
from torchmetrics import Metric


class RegionDice(Metric):
    """Dice of regions, each a union of classes, averaged over cases.

    Of every case and region it is 2 |A and B| / (|A| + |B|). A region that a case lacks counts 1 if it is not
    predicted either and 0 if it is, as in the BraTS challenge.

    Args:
        regions: Name of each region and the classes it consists of.

    Example:
        >>> metric = RegionDice({"core": (1,), "all": (1, 2)})
        >>> outputs = torch.eye(3)[[0, 1, 2, 2]].T.reshape(1, 3, 1, 1, 4)  # predicts 0 1 2 2
        >>> metric.update(outputs, torch.tensor([0, 1, 1, 2]).reshape(1, 1, 1, 4))
        >>> {name: round(float(dice), 3) for name, dice in metric.compute().items()}
        {'dice': 0.833, 'dice/core': 0.667, 'dice/all': 1.0}
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    cases: Tensor

    def __init__(self, regions: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.regions = {name: tuple(classes) for name, classes in regions.items()}
        self.add_state("total", torch.zeros(len(regions), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("cases", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add cases.

        Args:
            outputs: One score per class, `(N, classes, D, H, W)`.
            targets: Classes, `(N, D, H, W)`.
        """
        dice = compute_dice(self._masks(outputs.argmax(1)), self._masks(targets), ignore_empty=False)
        self.total += dice.double().sum(0).to(self.total.device)
        self.cases += len(targets)

    def compute(self) -> dict[str, Tensor]:
        """Mean over all cases, of each region and over the regions."""
        dice = self.total / self.cases
        return {"dice": dice.mean(), **{f"dice/{name}": dice[index] for index, name in enumerate(self.regions)}}

    def _masks(self, labels: Tensor) -> Tensor:
        masks = [torch.isin(labels, labels.new_tensor(classes)) for classes in self.regions.values()]
        return torch.stack(masks, dim=1)


class PartIoU(Metric):
    """Intersection over union of parts, in the convention usual for ShapeNet.

    Of a shape, only scores of its own category's parts compete, and only voxels that hold a point count. The IoU of
    a shape is the mean over all parts of its category, where a part that is neither there nor predicted counts 1.
    `iou` is the mean over all shapes (*instance mean*), `iou/categories` the mean over categories of the mean over
    the category's shapes (*class mean*). The category is that of the targets.

    Args:
        parts: Number of parts of every category; classes are numbered through.
        names: Of the categories.

    Example:
        >>> metric = PartIoU(parts=(2, 1), names=("Bag", "Cap"))
        >>> outputs = torch.eye(3)[[0, 1, 1, 2]].T.reshape(1, 3, 1, 1, 4)
        >>> metric.update(outputs, torch.tensor([0, 0, 1, -100]).reshape(1, 1, 1, 4))
        >>> metric.compute()["iou/Bag"]  # both parts: 1 voxel of 2
        tensor(0.5000, dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    shapes: Tensor
    right: Tensor
    voxels: Tensor

    def __init__(self, parts: Sequence[int], names: Sequence[str]) -> None:
        super().__init__()
        self.parts, self.names = tuple(parts), tuple(names)
        self.first = tuple(accumulate(self.parts, initial=0))
        self.add_state("total", torch.zeros(len(self.parts), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("shapes", torch.zeros(len(self.parts), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("right", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("voxels", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add shapes.

        Args:
            outputs: One score per part, `(N, parts, D, H, W)`.
            targets: Parts, `(N, D, H, W)`, negative where there is no point.
        """
        for scores, truth in zip(outputs, targets, strict=True):
            occupied = truth >= 0
            truth = truth[occupied]
            if not len(truth):
                continue
            category = next(index for index in range(len(self.parts)) if truth[0] < self.first[index + 1])
            first, last = self.first[category : category + 2]
            predicted = scores[first:last, occupied].argmax(0) + first
            self.total[category] += _mean_iou(predicted - first, truth - first, last - first).to(self.total.device)
            self.shapes[category] += 1
            self.right += (predicted == truth).sum().to(self.right.device)
            self.voxels += len(truth)

    def compute(self) -> dict[str, Tensor]:
        """Means over shapes and categories, of each category, and the share of voxels that are right."""
        seen = [index for index in range(len(self.parts)) if self.shapes[index]]
        iou = {self.names[index]: self.total[index] / self.shapes[index] for index in seen}
        return {
            "iou": self.total.sum() / self.shapes.sum(),
            "iou/categories": torch.stack(list(iou.values())).mean() if iou else self.total.sum() / 0,
            "accuracy": self.right / self.voxels,
            **{f"iou/{name}": value for name, value in iou.items()},
        }


def _mean_iou(predicted: Tensor, truth: Tensor, parts: int) -> Tensor:
    confusion = torch.bincount(truth * parts + predicted, minlength=parts**2).reshape(parts, parts).double()
    both = confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1) - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0).mean()


class ClipAccuracy(Metric):
    """Share of clips, and of videos, whose class is the best or among the five best.

    The scores of a video are the means of its clips' probabilities. With fewer than five classes, all are among
    the best.

    Example:
        >>> metric = ClipAccuracy()
        >>> outputs = torch.tensor([[[0.0, 1.0], [3.0, 0.0]]])  # one video of two clips
        >>> metric.update(outputs, torch.tensor([0]))
        >>> float(metric.compute()["top1"]), float(metric.compute()["clip_top1"])
        (1.0, 0.5)
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    clips: Tensor
    videos: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.zeros(4, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("clips", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("videos", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add videos.

        Args:
            outputs: One score per class, `(N, clips, classes)`.
            targets: Classes, `(N,)`.
        """
        clips = outputs.shape[1]
        videos = outputs.softmax(-1).mean(1)
        by_clip = outputs.flatten(0, 1), targets.repeat_interleave(clips)
        right = [_among_best(*pair, k) for pair in ((videos, targets), by_clip) for k in (1, 5)]
        self.right += torch.stack(right).to(self.right.device)
        self.clips += clips * len(targets)
        self.videos += len(targets)

    def compute(self) -> dict[str, Tensor]:
        """The four shares."""
        top1, top5, clip_top1, clip_top5 = self.right
        return {
            "top1": top1 / self.videos,
            "top5": top5 / self.videos,
            "clip_top1": clip_top1 / self.clips,
            "clip_top5": clip_top5 / self.clips,
        }


def _among_best(scores: Tensor, targets: Tensor, k: int) -> Tensor:
    best = scores.topk(min(k, scores.shape[-1])).indices
    return (best == targets[:, None]).any(1).sum()
