"""Metrics on voxels and clips that can be counted by hand."""

import pytest
import torch

from ranp.experiments.data.metrics import ClipAccuracy, PartIoU, RegionDice


def scores(*rows: list[int], classes: int) -> torch.Tensor:
    """Outputs `(N, classes, 1, 1, W)` whose best class is the one given."""
    return torch.nn.functional.one_hot(torch.tensor(rows), classes).movedim(-1, 1)[:, :, None, None].float()


def labels(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows)[:, None, None]


def plain(values: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def test_dice_is_averaged_over_cases_and_not_over_voxels() -> None:
    metric = RegionDice({"a": (1,), "b": (2,)})
    # First case: a 2*1/(2+1), b 1. Second: a 1, b 2*2/(2+4).
    metric.update(scores([1, 1, 0, 2], classes=3), labels([1, 0, 0, 2]))
    metric.update(scores([1, 2, 2, 0, 0], classes=3), labels([1, 2, 2, 2, 2]))
    assert plain(metric.compute()) == pytest.approx({"dice": 5 / 6, "dice/a": 5 / 6, "dice/b": 5 / 6})


def test_the_dice_of_an_absent_region_is_one_or_zero() -> None:
    metric = RegionDice({"a": (1,), "b": (2,)})
    metric.update(scores([0, 0], [0, 2], classes=3), labels([0, 0], [0, 0]))
    assert plain(metric.compute()) == {"dice": 0.75, "dice/a": 1.0, "dice/b": 0.5}


def test_pooled_dice_counts_the_voxels_of_all_inputs() -> None:
    metric = RegionDice({"a": (1,), "b": (2,), "c": (3,)}, pooled=True)
    metric.update(scores([1, 1, 0, 2], classes=4), labels([1, 0, 0, 2]))
    metric.update(scores([1, 2, 2, 0], [0, 0, 0, 0], classes=4), labels([1, 2, 2, 2], [2, 0, 0, 0]))
    # a: 2 * 2 / (3 + 2). b: 2 * 3 / (3 + 5). c is neither present nor predicted.
    expected = {"dice": (0.8 + 0.75 + 1) / 3, "dice/a": 0.8, "dice/b": 0.75, "dice/c": 1.0}
    assert plain(metric.compute()) == pytest.approx(expected)


def test_a_single_region_is_a_mask_too() -> None:
    metric = RegionDice({"all": (1, 2)})
    metric.update(scores([0, 1, 2, 0], classes=3), labels([2, 2, 1, 0]))
    assert plain(metric.compute()) == pytest.approx({"dice": 0.8, "dice/all": 0.8})


def test_part_iou_by_hand() -> None:
    metric = PartIoU(parts=(2, 3), names=("Bag", "Chair"))
    # Bag: part 0 has 2 of 3 voxels, part 1 1 of 2: (2/3 + 1/2) / 2 = 7/12.
    metric.update(scores([0, 0, 1, 0, 4], classes=5), labels([0, 0, 1, 1, -100]))
    # Bag without its second part, all right: both count 1.
    metric.update(scores([0, 0], classes=5), labels([0, 0]))
    # Chair: part 2 right, part 3 taken for part 4 (0 and 0).
    metric.update(scores([2, 4], classes=5), labels([2, 3]))
    bag, chair = (7 / 12 + 1) / 2, 1 / 3
    assert plain(metric.compute()) == pytest.approx(
        {
            "iou": (7 / 12 + 1 + 1 / 3) / 3,
            "iou/categories": (bag + chair) / 2,
            "accuracy": 6 / 8,
            "iou/Bag": bag,
            "iou/Chair": chair,
        }
    )


def test_parts_of_other_categories_are_never_predicted() -> None:
    metric = PartIoU(parts=(2, 2), names=("Bag", "Cap"))
    outputs = torch.tensor([[9.0, 9.0, 1.0, 2.0]]).reshape(1, 4, 1, 1, 1)
    metric.update(outputs, labels([3]))
    assert plain(metric.compute())["iou"] == 1


def test_shapes_in_one_batch_are_counted_separately() -> None:
    together, apart = PartIoU((2, 2), ("Bag", "Cap")), PartIoU((2, 2), ("Bag", "Cap"))
    outputs, truth = scores([0, 1, 1], [2, 2, 3], classes=4), labels([0, 0, 1], [3, 2, 3])
    together.update(outputs, truth)
    for index in range(2):
        apart.update(outputs[index : index + 1], truth[index : index + 1])
    assert plain(together.compute()) == plain(apart.compute())
    assert plain(together.compute())["iou"] == pytest.approx(0.5)


def test_clip_accuracy_by_hand() -> None:
    metric = ClipAccuracy()
    # Seven classes; the scores of a clip fall from the first class named to the last.
    order = [[6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6]]
    clips = torch.zeros(1, 2, 7)
    for clip, classes in enumerate(order):
        clips[0, clip, classes] = torch.arange(7.0, 0.0, -1)
    # Class 0 is the best of the second clip and the worst of the first; class 3 is fourth in both.
    for truth in (0, 3):
        metric.update(clips, torch.tensor([truth]))
    mean = clips.softmax(-1).mean(1)[0]
    ahead = int((mean > mean[3]).sum())
    assert (ahead, float(mean[0])) == (6, pytest.approx(float(mean.max())))
    values = plain(metric.compute())
    assert values["clip_top1"] == 1 / 4
    assert values["clip_top5"] == 3 / 4
    assert values["top5"] == 1 / 2


def test_top5_uses_five_classes() -> None:
    metric = ClipAccuracy()
    falling = torch.arange(7.0, 0.0, -1).expand(2, 1, 7)
    metric.update(falling, torch.tensor([4, 5]))
    assert plain(metric.compute()) == {"top1": 0, "top5": 0.5, "clip_top1": 0, "clip_top5": 0.5}


def test_a_video_is_classified_by_mean_probabilities_not_by_votes() -> None:
    metric = ClipAccuracy()
    # Two clips lean to class 1 by little, one to class 0 by much.
    metric.update(torch.tensor([[[0.0, 0.1], [0.0, 0.1], [5.0, 0.0]]]), torch.tensor([0]))
    assert plain(metric.compute()) == pytest.approx({"top1": 1.0, "top5": 1.0, "clip_top1": 1 / 3, "clip_top5": 1.0})
