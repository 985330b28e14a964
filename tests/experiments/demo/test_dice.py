"""Dice against MONAI's, and prediction that leaves no trace."""

import pytest
import torch
from monai.metrics import compute_dice
from torch import nn

from ranp.experiments.demo._dice import dice_scores, predict


def test_dice_equals_monai_over_pooled_voxels() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, truth = torch.randint(0, 4, (2, 3, 1, 5, 6, 7), generator=generator)
    # Pooled: the patches laid side by side are one large one.
    pooled = [torch.cat(list(each), dim=1)[None] for each in (predicted, truth)]
    one_hot = [nn.functional.one_hot(each[:, 0], 4).movedim(-1, 1) for each in pooled]
    expected = compute_dice(*one_hot, include_background=True)[0].tolist()
    assert dice_scores(predicted, truth, classes=4) == pytest.approx(expected)


def test_dice_by_hand() -> None:
    predicted, truth = torch.tensor([0, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 2, 2])
    assert dice_scores(predicted, truth, classes=4) == pytest.approx([1, 2 / 3, 4 / 5, 1])


def test_a_class_found_where_there_is_none_scores_zero() -> None:
    assert dice_scores(torch.tensor([1, 1]), torch.tensor([0, 1]), classes=2) == pytest.approx([0, 2 / 3])


def test_predict_takes_the_largest_logit_in_any_batch_size() -> None:
    logits = torch.randn(5, 3, 2, 2, 2)
    model = nn.Sequential(nn.Conv3d(3, 3, 1))
    with torch.no_grad():
        nn.init.dirac_(model[0].weight)
        model[0].bias.zero_()
    for batch in (1, 2, 5):
        assert torch.equal(predict(model, logits, batch=batch), logits.argmax(1, keepdim=True))


def test_predict_uses_running_statistics_and_puts_every_mode_back() -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Dropout(0.5))
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = model[1].running_mean.clone()
    inputs = torch.randn(2, 1, 2, 2, 2)
    assert torch.equal(predict(model, inputs), predict(model, inputs))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[1].running_mean, before)
