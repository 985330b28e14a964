import copy
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import ranp
from ranp.cli import app
from ranp.errors import InputError
from ranp.experiments.data.synthetic import brain_tumor, draw_batches
from ranp.experiments.losses import dice_cross_entropy
from ranp.experiments.reproduce.counting import PublishedResources
from ranp.experiments.reproduce.networks import METHODS, NETWORKS, PublishedNetwork
from ranp.experiments.reproduce.resources import ResourceRow, in_layer_order, record_saliency, run_resources
from ranp.experiments.reproduce.selection import Evidence, kept_channels, select, wiring
from ranp.models import UNet3D

TINY = PublishedNetwork(
    name="tiny",
    build=partial(UNet3D, in_channels=4, out_channels=5, width=8, levels=3),
    input_shape=(1, 4, 8, 8, 12),
    draw=partial(brain_tumor, size=12, crop=8),
    loss=dice_cross_entropy,
    sparsity=0.6,
    snip_sparsity=0.97,
    resource_weight=11,
    softmax=False,
    published=dict.fromkeys(METHODS, PublishedResources(1, 2, 3)),
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> PublishedNetwork:
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    return TINY


def rows_of(name: str, **options: int) -> dict[str, ResourceRow]:
    return {row.method: row for row in run_resources([name], batches=2, **options)}


def test_rows_by_method(tiny: PublishedNetwork) -> None:
    rows = rows_of("tiny")
    assert tuple(rows) == METHODS
    full = tiny.build()
    assert rows["full"].widths == tuple(m.out_channels for m in full.modules() if isinstance(m, nn.Conv3d))
    assert rows["full"].gflops == tiny.resources(full).gflops
    assert rows["full"].feasible
    layerwise = [-(-width * 4 // 10) for width in rows["full"].widths[:-1]]
    assert rows["layerwise"].widths == (*layerwise, 5)
    for method in METHODS[1:]:
        assert rows[method].params_mb < rows["full"].params_mb
        assert rows[method].gflops < rows["full"].gflops
        assert rows[method].memory_mb < rows["full"].memory_mb
        assert rows[method].widths[-1] == 5
        assert min(rows[method].widths) >= 1
        assert rows[method].feasible == (rows[method].max_sparsity is None) == (not rows[method].emptied)
    neurons = sum(rows["full"].widths)
    for method in ("weighted", "ranp-f"):
        if rows[method].feasible:
            beyond = int(neurons * (1 - tiny.sparsity))
            assert beyond <= sum(rows[method].widths) <= beyond + 5


def test_the_seed_decides(tiny: PublishedNetwork) -> None:
    assert rows_of("tiny", seed=3) == rows_of("tiny", seed=3)
    assert rows_of("tiny", seed=3)["random"].widths != rows_of("tiny", seed=4)["random"].widths


def test_infeasible_methods_say_how_far_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", replace(TINY, sparsity=0.97))
    row = rows_of("tiny")["vanilla"]
    assert not row.feasible
    assert row.emptied
    assert 0 < row.max_sparsity < 0.97
    assert min(row.widths) == 1
    monkeypatch.setitem(NETWORKS, "tiny", replace(TINY, sparsity=row.max_sparsity))
    assert rows_of("tiny")["vanilla"].feasible
    monkeypatch.setitem(NETWORKS, "tiny", replace(TINY, sparsity=row.max_sparsity + 2e-4))
    assert not rows_of("tiny")["vanilla"].feasible


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return TINY.build()


@pytest.fixture(scope="module")
def evidence(model: nn.Module) -> Evidence:
    graph = ranp.trace(model, torch.zeros(TINY.input_shape))
    with record_saliency(model, graph) as saliency:
        scores = ranp.score(model, graph, draw_batches(TINY.draw, 3, seed=0), TINY.loss, criterion="vanilla")
    return Evidence(graph, scores.stages["importance"], in_layer_order(saliency, graph), TINY.resource_weight, seed=0)


def test_recorded_saliency_is_that_of_explicit_masks(model: nn.Module, evidence: Evidence) -> None:
    model = copy.deepcopy(model)
    layers = {layer.name: model.get_submodule(layer.name) for layer in evidence.graph.layers}
    model.train()
    nn.init.zeros_(layers["head"].bias)
    expected = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    for inputs, labels in draw_batches(TINY.draw, 3, seed=0):
        masks = {f"{name}.weight": torch.ones_like(layer.weight, requires_grad=True) for name, layer in layers.items()}
        masked = {name: mask * model.get_parameter(name).detach() for name, mask in masks.items()}
        loss = TINY.loss(torch.func.functional_call(model, masked, inputs), labels)
        for total, gradient in zip(expected.values(), torch.autograd.grad(loss, list(masks.values())), strict=True):
            total += gradient.abs()
    for name, saliency in evidence.saliency.items():
        np.testing.assert_allclose(saliency, expected[name].flatten(2).numpy(), rtol=1e-3, atol=1e-7)


def test_recorded_saliency_sums_to_the_importance_of_neurons(model: nn.Module, evidence: Evidence) -> None:
    for name, saliency in evidence.saliency.items():
        by_neuron = saliency.sum(axis=(1, 2), dtype=np.float64) / 3
        np.testing.assert_allclose(by_neuron, evidence.importance[name], rtol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter._backward_hooks for parameter in model.parameters())


def test_methods_go_by_the_stages_of_ranp_score(model: nn.Module, evidence: Evidence) -> None:
    batches = draw_batches(TINY.draw, 3, seed=0)
    for method in ("vanilla", "weighted", "ranp-m", "ranp-f"):
        scores = ranp.score(
            model, evidence.graph, batches, TINY.loss, criterion=method, resource_weight=TINY.resource_weight
        )
        last = list(scores.stages.values())[-1]
        ranking = np.sort(np.concatenate(list(last.values())))[::-1]
        threshold = ranking[int(ranking.size * 0.7) - 1]
        kept = select(method, evidence, 0.3).kept
        for name, score in last.items():
            if name != "head":
                assert (kept[name] == (score >= threshold)).all()


def test_wiring_is_the_networks(evidence: Evidence) -> None:
    reads, makes = wiring(evidence.graph)
    assert (reads["encoder.0.conv1"] == -1).all()
    assert (makes["head"] == -1).all()
    skip, below = makes["encoder.1.conv2"], makes["encoder.2.conv2"]
    assert reads["decoder.0.conv1"].tolist() == [*skip.tolist(), *below.tolist()]
    assert reads["head"].tolist() == makes["decoder.1.conv2"].tolist()


def test_kept_neurons_become_channels_of_groups(evidence: Evidence) -> None:
    graph = evidence.graph
    kept = {layer.name: np.arange(layer.width) % 3 == 0 for layer in graph.layers}
    channels = kept_channels(graph, kept)
    assert {name: kept_[-1] % 3 for name, kept_ in channels.items()} == dict.fromkeys(channels, 0)
    assert {group.name: (group.width + 2) // 3 for group in graph.groups} == {
        name: len(kept_) for name, kept_ in channels.items()
    }


def test_dice_and_cross_entropy_by_hand() -> None:
    labels = torch.tensor([0, 1, 1, 2]).view(1, 1, 1, 4)
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2], [0.2, 0.2, 0.6]]))
    outputs = logits.T.reshape(1, 3, 1, 1, 4)
    entropy = -np.log([0.5, 0.8, 0.4, 0.6]).mean()
    dice1 = 2 * (0.8 + 0.4) / (0.3 + 0.8 + 0.4 + 0.2 + 2)
    dice2 = 2 * 0.6 / (0.2 + 0.1 + 0.2 + 0.6 + 1)
    expected = entropy + 1 - (dice1 + dice2) / 2
    assert float(dice_cross_entropy(outputs, labels)) == pytest.approx(expected, abs=1e-4)


def test_unknown_networks_are_refused_before_any_work(tiny: PublishedNetwork) -> None:
    calls: list[str] = []
    with pytest.raises(InputError, match="did you mean 'shapenet'"):
        run_resources(["tiny", "shapnet"], progress=lambda what, done, total: calls.append(what))
    assert not calls


def test_progress_reaches_its_end(tiny: PublishedNetwork) -> None:
    calls: list[tuple[str, int, int]] = []
    run_resources(["tiny"], batches=2, progress=lambda *call: calls.append(call))
    assert ("tiny: scoring", 2, 2) in calls
    assert ("tiny: methods", len(METHODS), len(METHODS)) in calls


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", "resources", *arguments], env={"COLUMNS": "120"})


def test_command_prints_the_table(tiny: PublishedNetwork) -> None:
    found = command("--networks", "tiny", "--batches", "1")
    assert found.exit_code == 0
    for row in json.loads(command("--networks", "tiny", "--batches", "1", "--json").stdout)["rows"]:
        assert f"{row['params_mb']:.2f}" in found.stdout
        assert row["method"] in found.stdout


def test_command_prints_the_rows(tiny: PublishedNetwork) -> None:
    found = json.loads(command("--networks", "tiny", "--batches", "1", "--json").stdout)
    rows = found["rows"]
    assert [row["method"] for row in rows] == list(METHODS)
    assert [row["network"] for row in rows] == ["tiny"] * len(METHODS)
    assert rows[0]["published"] == {"params_mb": 1, "gflops": 2, "memory_mb": 3}
    assert {row["widths"][-1] for row in rows} == {5}


def test_command_takes_networks_with_commas_and_repeated(tiny: PublishedNetwork) -> None:
    for arguments in (["--networks", "tiny,oops"], ["--networks", "tiny", "--networks", "oops"]):
        found = command(*arguments)
        assert found.exit_code == 1
        assert "'oops'" in found.stderr
