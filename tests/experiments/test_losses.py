"""Losses compared with MONAI and by hand; schedules at their ends."""

import pytest
import torch
from monai.losses import DiceCELoss
from torch.nn import functional as F

from ranp.errors import InputError
from ranp.experiments.losses import SCHEDULES, dice_cross_entropy, objective


def test_dice_agrees_with_monai() -> None:
    outputs, targets = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 4, 4, 4))
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    expected = monai(outputs, targets[:, None])
    torch.testing.assert_close(dice_cross_entropy(outputs, targets), expected, atol=1e-5, rtol=0)


def test_mean_squared_error_ignores_no_value() -> None:
    outputs, targets = torch.tensor([0.0, 1.0]), torch.tensor([-100.0, 2.0])
    assert float(objective("mse", -100)(outputs, targets)) == F.mse_loss(outputs, targets) == 5000.5


def test_an_unknown_loss_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'cross-entropy'"):
        objective("crossentropy")


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
