"""The formula equals the prediction at any widths, and is an upper bound where it has to be."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import CASES
from helpers.oracles import random_plan
from ranp import TrainingSetup
from ranp.errors import InputError
from ranp.graph import ChannelGraph, Ints
from ranp.memory import MemoryPredictor
from ranp.models import UNet3D
from training_networks import checkpointed_unet


def _widths(graph: ChannelGraph, seed: int) -> Ints:
    plan = random_plan(graph, seed=seed, fraction=0.5)
    return np.array([len(plan.keep[group.name]) for group in graph.groups])


@pytest.mark.parametrize("name", [name for name in CASES if "attention" not in name])
def test_at_random_widths(name: str) -> None:
    model, inputs = CASES[name].build(), CASES[name].inputs()
    graph = ranp.trace(model, inputs)
    if not graph.groups:
        pytest.skip("nothing can be pruned")
    predictor = MemoryPredictor(model, inputs, TrainingSetup(optimizer="sgd"), graph=graph)
    formula = predictor.formula()
    for widths in (graph.widths, _widths(graph, 1)):
        assert formula.evaluate(widths) == pytest.approx(predictor.predict(widths).peak_bytes, rel=0.01)


@pytest.mark.parametrize("batch", [1, 2])
def test_it_is_exact_for_a_unet(batch: int) -> None:
    model, inputs = UNet3D(1, 3, width=8, levels=3), torch.zeros(batch, 1, 8, 8, 8)
    graph = ranp.trace(model, inputs)
    predictor = MemoryPredictor(model, inputs, graph=graph)
    formula = predictor.formula()
    for widths in (graph.widths, np.ones_like(graph.widths), *(_widths(graph, seed) for seed in range(6))):
        assert formula.evaluate(widths) == predictor.predict(widths).peak_bytes
    other = predictor.formula(batch=3, size=16)
    assert other.evaluate(graph.widths) == predictor.predict(batch=3, size=16).peak_bytes


def test_a_block_that_is_no_product_counts_in_full() -> None:
    class Flattened(nn.Module):
        """Joins all elements of two layers in one tensor: a sum of products."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 5, 3), nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            z = self.second(y)
            joined = torch.cat([y.flatten().detach(), z.flatten().detach()])
            return self.head(z) * joined.mean()

    model, inputs = Flattened(), torch.zeros(2, 1, 12, 12)
    graph = ranp.trace(model, inputs)
    predictor = MemoryPredictor(model, inputs, graph=graph)
    formula = predictor.formula()
    assert formula.evaluate(graph.widths) >= predictor.predict().peak_bytes
    assert formula.evaluate(_widths(graph, 0)) >= predictor.predict(_widths(graph, 0)).peak_bytes


def test_a_step_that_depends_on_the_widths_has_no_formula() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.head(y.sigmoid() if y.shape[1] > 6 else y)

    model, inputs = Branches(), torch.zeros(2, 1, 12, 12)
    predictor = MemoryPredictor(model, inputs, graph=ranp.trace(model, inputs))
    with pytest.raises(InputError, match="memory formula: the training step runs other operators at other widths"):
        predictor.formula()
    with pytest.raises(InputError, match="memory formula: it needs a graph"):
        MemoryPredictor(model, inputs).formula()


def test_checkpoints_leave_nothing_that_a_step_at_other_widths_meets() -> None:
    model, inputs = checkpointed_unet(4), torch.zeros(1, 1, 16, 16, 16)
    graph = ranp.trace(model, inputs)
    predictor = MemoryPredictor(model, inputs, graph=graph)
    formula = predictor.formula()
    assert formula.evaluate(graph.widths // 2) == predictor.predict(graph.widths // 2).peak_bytes
