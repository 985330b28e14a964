"""Losses against figures by hand and against another implementation; schedules at their ends."""

import pytest
import torch
from monai.losses import DiceLoss
from torch.nn import functional as F

from ranp.experiments.losses import SCHEDULES, dice_cross_entropy, objective


def test_dice_agrees_with_monai() -> None:
    outputs, targets = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 4, 4, 4))
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(outputs, targets[:, None])
    expected = F.cross_entropy(outputs, targets) + dice
    torch.testing.assert_close(dice_cross_entropy(outputs, targets), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["cross-entropy", "dice-cross-entropy"])
def test_ignored_voxels_change_nothing(name: str) -> None:
    outputs, targets = torch.randn(1, 3, 4, 4, 4, requires_grad=True), torch.randint(0, 3, (1, 4, 4, 4))
    loss_fn = objective(name, -100)
    hidden = targets.clone()
    hidden[:, 2:] = -100
    torch.testing.assert_close(loss_fn(outputs, hidden), loss_fn(outputs[:, :, :2], targets[:, :2]))
    (gradient,) = torch.autograd.grad(loss_fn(outputs, hidden), outputs)
    assert not gradient[:, :, 2:].any()
    assert gradient[:, :, :2].any()


def test_schedules_begin_and_end_where_they_should() -> None:
    ends = {name: (schedule(0.0), schedule(1.0)) for name, schedule in SCHEDULES.items()}
    assert ends["constant"] == (1, 1)
    assert ends["cosine"] == pytest.approx((1, 0))
    assert ends["linear"] == pytest.approx((0.02, 0))
    assert SCHEDULES["cosine"](0.5) == pytest.approx(0.5)
