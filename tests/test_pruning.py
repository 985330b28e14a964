"""`prune` end to end: what it returns, and what its report says."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ranp
from helpers.networks import CASES, image
from helpers.oracles import counted_macs
from helpers.unchanged import batches, inputs, network
from ranp.criteria import CRITERIA


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_end_to_end(criterion: str, importance: Any) -> None:
    model = CASES["residual_with_projection"].build()
    example = CASES["residual_with_projection"].inputs()
    data = [(example, torch.ones(2, 2, 4, 4))]
    reports: list[tuple[str, int, int]] = []
    result = ranp.prune(
        model,
        example,
        data,
        F.mse_loss,
        budget=ranp.Budget(macs=0.5),
        criterion=criterion,
        importance=importance,
        seed=4,
        progress=lambda *args: reports.append(args),
    )
    again = ranp.apply(model, result.plan).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in result.model.state_dict().items())
    assert result.model(example).shape == (2, 2, 4, 4)
    assert counted_macs(result.model.eval(), example) == result.plan.cost.macs <= 0.5 * counted_macs(model, example)
    assert (result.plan.criterion, result.plan.seed) == (criterion, 4)
    assert result.verification.status == "exact"
    assert (result.report.before, result.report.after) == (result.plan.full_cost, result.plan.cost)
    assert {row.layer: row.kept for row in result.report.layers} == result.plan.widths
    whats = [what for what, *_ in reports if what != "measuring step times"]  # They may have been measured before.
    assert [w for i, w in enumerate(whats) if whats.index(w) == i] == [
        "tracing",
        "checking budget",
        *(["scoring"] if CRITERIA[criterion].needs_batches else []),
        "allocating",
        "verifying",
        "applying",
    ]


def test_the_pruned_model_trains() -> None:
    model = CASES["unet_of_odd_size"].build()
    x = image(2, 1, 5, 7, 6)()
    y = torch.cat([F.avg_pool3d(x, 3, stride=1, padding=1), -x], 1)
    small = ranp.prune(model, x, [(x, y)], F.mse_loss, budget=ranp.Budget(params=0.5)).model
    optimizer = torch.optim.Adam(small.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.mse_loss(small(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_the_report_can_be_read() -> None:
    result = ranp.prune(network(), inputs(), batches(), F.mse_loss, budget=ranp.Budget(macs=0.5))
    text = str(result.report)
    for layer, kept in result.plan.widths.items():
        row = next(line for line in text.splitlines() if f" {layer} " in line)
        assert f" {kept} " in row
    assert "multiply-adds" in text
    assert result.report.warnings == ()


def test_the_report_warns() -> None:
    def report(norm: nn.Module) -> Any:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Conv2d(8, 2, 1))
        x = image(2, 3, 7, 7)()
        data = [(x, torch.ones(2, 2, 5, 5))]
        return ranp.prune(model, x, data, F.mse_loss, budget=ranp.Budget(macs=0.9)).report

    class Single(nn.Module):
        """Insists on single precision."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float()

    assert report(nn.BatchNorm2d(8)).warnings == report(nn.GroupNorm(1, 8)).warnings == ()
    assert report(Single()).warnings[0].startswith("the model does not run in float64: the pruned model was checked")
    case = CASES["operator_without_a_rule"]
    model = case.build()
    model.before, model.after = nn.Conv2d(3, 40, 1), nn.Conv2d(40, 5, 1)
    data = [(case.inputs(), torch.ones(2, 2, 7, 7))]
    found = ranp.prune(model, case.inputs(), data, F.mse_loss, budget=ranp.Budget(params=0.99)).report
    share = (3 * 40) / (3 * 40 + 40 * 5 + 5 * 2)
    assert [entry.macs_share for entry in found.unprunable if entry.operator == "linalg_matrix_exp"] == [
        pytest.approx(share)
    ]


def test_a_warning_names_every_group_that_nearly_vanishes() -> None:
    model = nn.Sequential(nn.Conv2d(1, 64, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 60, 1), nn.Conv2d(60, 2, 1))
    scores = [0.0] * 64 + list(range(64)) + [-1.0] * 60
    by_scores = ranp.scoring.Criterion(
        "fixed", "Given scores.", needs_batches=False, finish=lambda graph, channels, rng: np.array(scores)
    )
    how: dict[str, Any] = {"budget": ranp.Budget(sparsity=0.65), "criterion": by_scores}
    result = ranp.prune(model, torch.zeros(1, 1, 4, 4), [], **how, min_width=3, round_to=1)
    assert [len(kept) for kept in result.plan.keep.values()] == [3, 58, 3]
    (warning,) = result.report.warnings
    assert warning.startswith("less than 5% of the channels remain in 0 (3 of 64): such a layer can be a bottleneck;")
    assert ranp.prune(model, torch.zeros(1, 1, 4, 4), [], **how).report.warnings == ()
