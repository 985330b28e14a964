"""The predicted memory is that of real training steps, seen by a dispatch mode that counts tensors."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import ranp
from helpers import unchanged
from helpers.networks import CASES
from helpers.oracles import random_plan
from ranp import TrainingSetup
from ranp.errors import InputError, TraceError
from ranp.memory import MemoryPredictor, predict_memory
from ranp.models import UNet3D
from training_memory import live_peak


class Checkpointed(nn.Module):
    def __init__(self, block: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.block, self.reentrant = block, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=self.reentrant)


def _block(reads: int, makes: int) -> nn.Module:
    return nn.Sequential(nn.Conv3d(reads, makes, 3, padding=1), nn.GroupNorm(2, makes), nn.GELU())


def _checkpointed(reentrant: bool) -> nn.Module:
    return nn.Sequential(_block(1, 8), *(Checkpointed(_block(8, 8), reentrant) for _ in range(3)), nn.Conv3d(8, 2, 1))


class Scales(nn.Module):
    """Outputs at two scales, as for deep supervision, and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv3d(1, 6, 3, 2, 1), nn.InstanceNorm3d(6, affine=True), nn.LeakyReLU(inplace=True)
        )
        self.up = nn.ConvTranspose3d(6, 4, 2, 2)
        self.heads = nn.ModuleList([nn.Conv3d(6, 2, 1), nn.Conv3d(4, 2, 1)])
        self.unused = nn.Linear(50, 50)

    def forward(self, x: Tensor) -> list[Tensor]:
        low = self.down(x)
        return [self.heads[0](low), self.heads[1](torch.nn.functional.dropout(self.up(low), 0.5))]


NETWORKS = {
    "unet": partial(UNet3D, 1, 3, width=4, levels=3),
    "checkpointed": partial(_checkpointed, False),
    "reentrant checkpoints": partial(_checkpointed, True),
    "two scales": Scales,
}
SETUPS = {
    "adamw": TrainingSetup(),
    "sgd": TrainingSetup(optimizer="sgd"),
    "adagrad": TrainingSetup(optimizer=partial(torch.optim.Adagrad, lr=1e-3)),
    "channels last": TrainingSetup(optimizer="sgd", channels_last=True),
    "bf16-mixed": TrainingSetup(precision="bf16-mixed"),
    "bfloat16": TrainingSetup(precision="bfloat16", optimizer="adam"),
}


def _inputs(samples: int, side: int = 8) -> Tensor:
    return torch.randn(samples, 1, side, side, side)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_real_step_takes_as_much(network: str, setup: str, samples: int) -> None:
    model, inputs = NETWORKS[network](), _inputs(samples)
    how = SETUPS[setup]
    real = live_peak(model, how.example_batch(inputs), how)
    # In low precision, torch keeps some statistics of norms in float32 where values exist.
    tolerance = 0 if how.precision == "float32" else 0.005
    assert predict_memory(model, inputs, how).peak_bytes == pytest.approx(real, rel=tolerance)


@pytest.mark.parametrize("name", [name for name in CASES if "attention" not in name])
def test_every_small_network_pruned(name: str) -> None:
    """With its loss, at widths of the graph, without the pruned network."""
    model, inputs = CASES[name].build(), CASES[name].inputs()
    graph = ranp.trace(model, inputs)
    if not graph.groups:
        pytest.skip("nothing can be pruned")
    plan = random_plan(graph, seed=3, fraction=0.5)
    widths = np.array([len(plan.keep[group.name]) for group in graph.groups])
    setup = TrainingSetup(optimizer="sgd")
    real = live_peak(ranp.apply(model, plan), setup.example_batch(inputs), setup)
    found = predict_memory(model, inputs, setup, graph=graph, widths=widths)
    assert found.peak_bytes == pytest.approx(real, rel=0.01)


def test_other_batch_and_input_sizes() -> None:
    def loss(outputs: list[Tensor], targets: tuple[Tensor, ...]) -> Tensor:
        return sum(map(nn.functional.cross_entropy, outputs, targets))  # type: ignore[arg-type,return-value]

    def batch(samples: int, side: int) -> Any:
        half = side // 2
        labels = torch.zeros(samples, half, half, half, dtype=torch.long), torch.zeros(samples, *[side] * 3).long()
        return _inputs(samples, side), labels

    model, small = Scales(), batch(1, 8)
    predictor = MemoryPredictor(model, small[0], TrainingSetup(loss_fn=loss, batch=small))
    real = live_peak(model, batch(3, 12), TrainingSetup(loss_fn=loss))
    assert predictor.predict(batch=3, size=12).peak_bytes == real
    assert predictor.predict(batch=3, size=(12, 12, 12)).peak_bytes == real
    assert predictor.predict().peak_bytes == live_peak(model, small, TrainingSetup(loss_fn=loss))


def test_the_composition_by_hand() -> None:
    """A linear layer: weight, gradient and momentum of 4,000 bytes each, and what its loss needs."""
    model = nn.Linear(100, 10, bias=False)
    setup = TrainingSetup(optimizer="sgd", step=lambda model, x: model(x).sum(), batch=torch.zeros(2, 100))
    found = predict_memory(model, None, setup)
    assert (found.peak.phase, found.peak.operator) == ("backward", "mm")
    assert found.composition == {
        "parameters": 4000,
        "buffers": 0,
        "optimizer_state": 4000,
        "batch": 800,
        "gradients": 4000,
        "activations": 8,  # the loss and its gradient
        "temporaries": 0,
    }


def test_layers_and_phases_are_named() -> None:
    model = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 1))
    moments = predict_memory(model, _inputs(1)).moments
    layers = [(one.phase, one.path, one.operator) for one in moments if "convolution" in one.operator]
    assert layers == [
        ("forward", "0", "convolution"),
        ("forward", "2", "convolution"),
        ("backward", "2", "convolution_backward"),
        ("backward", "0", "convolution_backward"),
    ]
    assert ("backward", "1", "threshold_backward") in [(one.phase, one.path, one.operator) for one in moments]
    assert [one.phase for one in moments] == sorted(
        (one.phase for one in moments), key="forward backward optimizer".index
    )
    assert {one.path for one in moments if one.phase == "optimizer"} == {""}


def test_activations_belong_to_the_layers_that_made_them() -> None:
    model = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.Conv3d(8, 2, 1))
    found = predict_memory(model, _inputs(1)).by_path()
    volume, statistics = 8 * 8**3 * 4, 2 * 8 * 4
    assert (found["0"], found["1"]) == (volume, volume + statistics)


def test_on_a_gpu_sizes_are_rounded_and_the_optimizer_takes_all_parameters_at_once() -> None:
    model = nn.Linear(100, 10)
    found = predict_memory(model, torch.zeros(1, 100), TrainingSetup(device="cuda"))
    assert {block.bytes % 512 for block in found.blocks} == {0}
    assert found.composition["parameters"] == 4096 + 512
    assert any(moment.operator.startswith("_foreach") for moment in found.moments)
    assert found.process_bytes == found.peak_bytes


def test_the_gradient_scaler_skips_no_step() -> None:
    model = nn.Linear(100, 10)
    found = predict_memory(model, torch.zeros(1, 100), TrainingSetup(precision="16-mixed"))
    assert found.composition["optimizer_state"] == 2 * (4000 + 40 + 4)
    assert not found.notes


def test_a_forward_that_reads_values_is_noted() -> None:
    class Reads(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * x.mean().item()

    found = predict_memory(nn.Sequential(Reads(3, 3)), torch.zeros(1, 3))
    assert found.notes == ("the forward of 0 reads values of tensors, which were assumed to be one",)


def test_constants_have_their_values() -> None:
    class Constant(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).repeat(int(torch.tensor(3)), 1)

    found = predict_memory(Constant(3, 5, bias=False), torch.zeros(1, 3))
    assert not found.notes
    assert 3 * 5 * 4 in {block.bytes for block in found.blocks}


def test_nothing_else_changes() -> None:
    model, inputs = unchanged.network(), unchanged.inputs()
    graph = ranp.trace(model, inputs)

    def predict() -> None:
        predictor = MemoryPredictor(model, inputs, graph=graph)
        first = predictor.predict()
        predictor.predict(np.maximum(graph.widths // 2, 1))
        predictor.formula()
        assert predictor.predict().peak_bytes == first.peak_bytes

    unchanged.assert_unchanged(model, predict)


def test_widths_need_a_graph_and_its_shape() -> None:
    model, inputs = UNet3D(1, 3, width=4, levels=3), _inputs(1)
    with pytest.raises(InputError, match=r"predict_memory: widths: they need a graph; pass graph=ranp.trace\("):
        predict_memory(model, inputs, widths=[1])
    with pytest.raises(InputError, match=r"^widths: got .*1, 0.*; expected one integer for each of 10 groups"):
        predict_memory(model, inputs, graph=ranp.trace(model, inputs), widths=[1, 0])


def test_a_step_that_cannot_be_run_names_the_module() -> None:
    with pytest.raises(TraceError, match=r"forward of 0: fails .* RuntimeError"):
        predict_memory(nn.Sequential(nn.MaxPool3d(16), nn.Conv3d(1, 1, 1)), _inputs(1))
    with pytest.raises(InputError, match=r"^batch: got 0; expected an integer of at least 1"):
        predict_memory(nn.Conv3d(1, 1, 1), _inputs(1), batch=0)
    with pytest.raises(InputError, match=r"expected a tensor of shape \(N, C, ...\)"):
        predict_memory(nn.Linear(3, 3), torch.zeros(2, 3), batch=4)
