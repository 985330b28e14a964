"""Scores by every criterion: formulas by hand, and what scoring needs and leaves alone."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ranp
from helpers.networks import CASES, image
from ranp.errors import InputError
from ranp.scoring import CRITERIA, Criterion


def network() -> tuple[nn.Module, Any, list[tuple[Tensor, Tensor]]]:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 2, 1))
    x = image(2, 3, 9, 9)()
    return model, ranp.trace(model, x), [(x, torch.ones(2, 2, 3, 3))]


@pytest.mark.parametrize("resource_weight", [math.nan, math.inf, -1.0])
def test_the_resource_weight_must_be_finite_and_not_negative(resource_weight: float) -> None:
    model, graph, batches = network()
    with pytest.raises(InputError, match=r"^resource_weight: got .*; expected a finite number of at least 0"):
        ranp.score(model, graph, batches, F.mse_loss, resource_weight=resource_weight)


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
@pytest.mark.parametrize("criterion", ["ranp-f", "ranp-m"])
def test_resource_aware_stages(criterion: str, importance: Any) -> None:
    model, graph, batches = network()
    scores = ranp.score(
        model, graph, batches, F.mse_loss, criterion=criterion, importance=importance, resource_weight=15.0
    )
    assert list(scores.stages) == ["importance", "weighted", criterion]
    raw = scores.stages["importance"]
    largest = max(values.mean() for values in raw.values())
    # Batch 2; 7 x 7, then 3 x 3 positions.
    used = {
        "ranp-f": {"0": 2 * 49 * 4 * 27, "2": 2 * 9 * 6 * 36, "4": 2 * 9 * 2 * 6},
        "ranp-m": {"0": 2 * 49 * 4, "2": 2 * 9 * 6, "4": 2 * 9 * 2},
    }[criterion]
    total = sum(math.exp(-used[name] / used["0"]) for name in used)
    for name, values in raw.items():
        weighted = values * largest / values.mean()
        np.testing.assert_allclose(scores.stages["weighted"][name], weighted)
        factor = 1 + 15.0 * math.exp(-used[name] / used["0"]) / total
        np.testing.assert_allclose(scores.stages[criterion][name], factor * weighted)
    final = scores.stages[criterion]
    np.testing.assert_allclose(scores.channels, np.concatenate([final["0"], final["2"]]))
    assert (scores.criterion, scores.resource_weight) == (criterion, 15.0)


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
@pytest.mark.parametrize("criterion", [name for name, each in CRITERIA.items() if each.needs_batches])
def test_a_loss_that_does_not_depend_on_removable_neurons_is_refused(criterion: str, importance: Any) -> None:
    """All channels would be equally important, and those with the lowest numbers would be kept."""
    model, graph, batches = network()
    graph = graph.with_costs(step_seconds=SecondsPerChannel(np.array([0.1, 0.4])))
    for loss in (lambda y, target: (y * 0).sum(), lambda y, target: F.mse_loss(y.clamp(-1e-9, 1e-9), target * 9)):
        with pytest.raises(InputError, match=r"^loss: its gradient is zero for every neuron that may be removed"):
            ranp.score(model, graph, batches, loss, criterion=criterion, importance=importance)
    # The head's weights have a gradient, but none of them may be removed.
    head = model[4]
    with pytest.raises(InputError, match="its gradient is zero"):
        ranp.score(
            model,
            graph,
            batches,
            step=lambda model, batch: head(torch.ones(1, 6, 1, 1)).sum(),
            criterion=criterion,
        )


def test_nothing_to_remove_needs_no_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    graph = ranp.trace(model, image(2, 3, 9, 9)())
    scores = ranp.score(model, graph, [(image(2, 3, 9, 9)(), None)] * 2, lambda y, target: (y * 0).sum())
    assert scores.channels.shape == (0,)
    assert scores.stability == ((2, 1.0),)


def test_scores_of_another_model_are_refused() -> None:
    model, graph, batches = network()
    others = {
        r"got no 2\.weight": model[:2],
        r"got 0\.weight of shape \(5, 3, 3, 3\)": nn.Sequential(nn.Conv2d(3, 5, 3), *model[1:]),
    }
    for problem, other in others.items():
        with pytest.raises(InputError, match=rf"^model: {problem}; expected shape .*score the model that was traced"):
            ranp.score(other, graph, batches, F.mse_loss)


class SecondsPerChannel:
    """A step whose time is linear in the widths."""

    def __init__(self, seconds: np.ndarray) -> None:
        self.seconds = seconds

    def evaluate(self, widths: np.ndarray) -> float:
        return float(self.seconds @ widths) + 1


def test_ranp_t_reweights_by_the_time_of_a_neuron() -> None:
    model, graph, batches = network()
    graph = graph.with_costs(step_seconds=SecondsPerChannel(np.array([0.1, 0.4])))
    scores = ranp.score(model, graph, batches, F.mse_loss, criterion="ranp-t", resource_weight=15.0)
    weights = {"0": math.exp(-0.25), "2": math.exp(-1.0)}
    # The last layer cannot be pruned.
    total = sum(weights.values()) + len(graph.layers) - 2
    for name, weight in weights.items():
        expected = (1 + 15.0 * weight / total) * scores.stages["weighted"][name]
        np.testing.assert_allclose(scores.stages["ranp-t"][name], expected)


def test_ranp_t_needs_step_times() -> None:
    model, graph, _ = network()

    def batches() -> Any:
        raise AssertionError("no batch is read before")
        yield

    with pytest.raises(InputError, match=r"^criterion ranp-t: it needs measured step times; use ranp.prune, or"):
        ranp.score(model, graph, batches(), F.mse_loss, criterion="ranp-t")


def test_default_resource_weight_and_stages_of_every_criterion() -> None:
    model, graph, batches = network()
    graph = graph.with_costs(step_seconds=SecondsPerChannel(np.array([0.1, 0.2])))
    found = {name: ranp.score(model, graph, batches, F.mse_loss, criterion=name) for name in CRITERIA}
    assert {name: scores.resource_weight for name, scores in found.items() if scores.resource_weight} == {
        "ranp-f": 11.0,
        "ranp-m": 11.0,
        "ranp-t": 11.0,
    }
    assert {name: list(scores.stages) for name, scores in found.items()} == {
        "uniform": [],
        "constant": [],
        "random": [],
        "layerwise": ["importance"],
        "vanilla": ["importance"],
        "weighted": ["importance", "weighted"],
        "ranp-f": ["importance", "weighted", "ranp-f"],
        "ranp-m": ["importance", "weighted", "ranp-m"],
        "ranp-t": ["importance", "weighted", "ranp-t"],
        "snip": ["importance"],
    }
    weighted = found["weighted"].stages["weighted"]
    np.testing.assert_allclose(found["weighted"].channels, np.concatenate([weighted["0"], weighted["2"]]))


def test_layerwise_ranks_within_groups() -> None:
    model, graph, batches = network()
    vanilla = ranp.score(model, graph, batches, F.mse_loss, criterion="vanilla").channels
    layerwise = ranp.score(model, graph, batches, F.mse_loss, criterion="layerwise").channels
    for part, width in ((slice(0, 4), 4), (slice(4, 10), 6)):
        best_first = np.argsort(-vanilla[part])
        np.testing.assert_allclose(layerwise[part][best_first], 1 - np.arange(width) / width)


def test_uniform_and_constant_widths_by_hand() -> None:
    model, graph, _ = network()  # groups of 4 and of 6 channels
    for criterion, sparsity, expected in (("uniform", 5 / 12, [2, 3]), ("constant", 2 / 12, [4, 4])):
        scores = ranp.score(model, graph, [], criterion=criterion)
        plan = ranp.allocate(graph, scores, ranp.Budget(sparsity=sparsity), min_width=1, round_to=1)
        assert [len(kept) for kept in plan.keep.values()] == expected
        assert all(kept == tuple(range(len(kept))) for kept in plan.keep.values())


def test_random_needs_no_batches_and_follows_its_seed() -> None:
    model, graph, _ = network()
    draws = [ranp.score(model, graph, [], criterion="random", seed=seed).channels for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert len(np.unique(draws[0])) == 10
    assert ((draws[0] >= 0) & (draws[0] < 1)).all()


def test_all_of_the_batches_are_used() -> None:
    model, graph, batches = network()
    x, y = batches[0]
    many = [(x, y), (x * 2, y), (x - 1, y)]
    scores = [ranp.score(model, graph, found, F.mse_loss, criterion="vanilla") for found in (many, many[:2], many[2:])]
    np.testing.assert_allclose(scores[0].channels, (2 * scores[1].channels + scores[2].channels) / 3, rtol=1e-4)
    assert [found.batches for found in scores] == [3, 2, 1]


def test_batches_of_every_kind_give_the_same_scores() -> None:
    case = CASES["inputs_by_name"]
    model, inputs = case.build(), case.inputs()
    graph = ranp.trace(model, inputs)
    y = torch.zeros(2, 2, 5, 5)

    def step(model: nn.Module, batch: Any) -> Tensor:
        return F.mse_loss(model(image=batch["image"], context=batch["context"]), batch["label"])

    by_name = ranp.score(model, graph, [(inputs, y)], F.mse_loss)
    by_step = ranp.score(model, graph, iter([{**inputs, "label": y}]), step=step)
    assert np.array_equal(by_name.channels, by_step.channels)


def test_dropout_follows_the_seed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    x = image(2, 3, 9, 9)()
    graph = ranp.trace(model, x)
    batches = [(x, torch.ones(2, 2, 7, 7))]
    found = []
    for seed in (0, 0, 1):
        torch.rand(7)  # Previous draws must not matter.
        found.append(ranp.score(model, graph, batches, F.mse_loss, seed=seed).channels)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_norms_are_seen_in_training_mode_and_biases_as_zeros() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    x = image(2, 3, 9, 9)()
    graph = ranp.trace(model, x)
    batches = [(x, torch.ones(2, 2, 7, 7))]
    seen: list[Any] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append((model.training, model[1].training, model[0].bias.abs().max(), model[3].bias.abs().max()))
        return F.mse_loss(outputs, targets)

    before = ranp.score(model, graph, batches, loss).channels
    assert seen == [(True, True, 0.0, 0.0)]
    model[1].running_mean += 5
    model[3].bias.data += 5
    assert np.array_equal(before, ranp.score(model, graph, batches, loss).channels)


def test_progress_is_reported() -> None:
    model, graph, batches = network()
    reported: list[tuple[str, int, int]] = []
    ranp.score(model, graph, batches * 3, F.mse_loss, progress=lambda *args: reported.append(args))
    assert reported == [("scoring", 1, 3), ("scoring", 2, 3), ("scoring", 3, 3)]
    reported.clear()
    ranp.score(
        model, graph, iter(batches), F.mse_loss, importance="neuron", progress=lambda *args: reported.append(args)
    )
    assert reported == [("scoring", 1, 0)]


# -- criteria of one's own ----------------------------------------------------------------------------------------


def per_mac(graph: Any, importance: Any, resource_weight: float) -> Any:
    cost = {layer.name: resource_weight * layer.macs / layer.width for layer in graph.layers}
    return {"importance": importance, "per-mac": {name: values / cost[name] for name, values in importance.items()}}


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_a_criterion_of_ones_own(importance: Any) -> None:
    model, graph, batches = network()
    before = dict(CRITERIA)
    mine = Criterion("per-mac", "Importance per multiply-add.", per_mac, uses_resource_weight=True)
    how: dict[str, Any] = {"importance": importance, "resource_weight": 2.0}
    scores = ranp.score(model, graph, batches, F.mse_loss, criterion=mine, **how)
    vanilla = ranp.score(model, graph, batches, F.mse_loss, criterion="vanilla", **how)
    # Batch 2; 7 x 7, then 3 x 3 positions.
    cost = np.repeat([2.0 * 2 * 49 * 27, 2.0 * 2 * 9 * 36], [4, 6])
    np.testing.assert_allclose(scores.channels, vanilla.channels / cost)
    assert list(scores.stages) == ["importance", "per-mac"]
    assert (scores.criterion, scores.importance, scores.resource_weight) == ("per-mac", importance, 2.0)
    assert vanilla.resource_weight == 0
    assert dict(CRITERIA) == before
    plan = ranp.prune(
        model, batches[0][0], batches, F.mse_loss, budget=ranp.Budget(macs=0.5), criterion=mine, **how
    ).plan
    assert plan.keep == ranp.allocate(graph, scores, ranp.Budget(macs=0.5)).keep
    assert (plan.criterion, plan.resource_weight) == ("per-mac", 2.0)


def test_a_criterion_without_batches_gets_no_importance() -> None:
    model, graph, _ = network()
    received = []

    def widest_first(graph: Any, importance: Any, resource_weight: float) -> Any:
        received.append(importance)
        return {"width": {layer.name: np.full(layer.width, float(layer.width)) for layer in graph.layers}}

    mine = Criterion("widest", "Channels of the widest layers.", widest_first, needs_batches=False)
    scores = ranp.score(model, graph, [], criterion=mine)
    assert scores.channels.tolist() == [4.0] * 4 + [6.0] * 6
    assert (received, scores.batches, scores.importance) == ([{}], 0, "")


def test_a_criterion_may_not_take_the_name_of_another() -> None:
    model, graph, batches = network()
    copied = dataclasses.replace(CRITERIA["ranp-f"])
    assert ranp.score(model, graph, batches, F.mse_loss, criterion=copied).criterion == "ranp-f"
    mine = Criterion("ranp-f", "Something else.", per_mac)
    with pytest.raises(InputError, match=r"^criterion: 'ranp-f' is the name of a built-in criterion.*another name"):
        ranp.score(model, graph, batches, F.mse_loss, criterion=mine)


@pytest.mark.parametrize("last", [{}, {"0": np.ones(4), "2": np.ones(5), "4": np.ones(2)}, {"0": np.ones(4)}])
def test_a_stage_without_a_score_for_every_neuron_is_refused(last: Any) -> None:
    model, graph, batches = network()
    mine = Criterion("mine", "Incomplete.", lambda graph, importance, resource_weight: {"last": last})
    if not last:
        assert not ranp.score(model, graph, batches, F.mse_loss, criterion=mine).channels.any()
        return
    with pytest.raises(InputError, match=r"^criterion mine: its last stage needs an array of shape \(6,\) for .* 2; "):
        ranp.score(model, graph, batches, F.mse_loss, criterion=mine)
