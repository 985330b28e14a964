"""What `fit` says fits does, and what it says does not fit does not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.simulated_device import simulate
from ranp.environment import memory_bytes
from ranp.errors import BudgetError, InputError
from ranp.fitting import FitResult, memory_limit
from ranp.memory import MemoryPredictor
from ranp.models import UNet3D
from training_memory import live_peak

MIB = 2**20
LIMIT = 24
USABLE = 0.9 * LIMIT * MIB
SETUP = ranp.TrainingSetup(optimizer="sgd", channels_last=True)


def model() -> UNet3D:
    torch.manual_seed(0)
    return UNet3D(1, 3, width=16, levels=2)


def inputs(samples: int = 2, side: int = 12) -> Tensor:
    return torch.zeros(samples, 1, side, side, side)


@pytest.fixture(scope="module")
def found() -> FitResult:
    return ranp.fit(model(), inputs(), SETUP, memory=f"{LIMIT} MiB", macs=[1, 0.5, "10%"])


def test_the_budget_of_a_row_leads_to_its_widths(found: FitResult) -> None:
    assert [row.budget.macs for row in found.rows] == [1, 0.5, 0.1]
    for row in found.rows:
        plan = ranp.prune(model(), inputs(), [], budget=row.budget, criterion="uniform").plan
        assert tuple(map(len, plan.keep.values())) == row.widths
        assert plan.cost == replace(row.cost, train_bytes=None)
    assert found.rows[0].widths == found.full_widths


def test_rows_are_the_largest_that_are_predicted_to_fit(found: FitResult) -> None:
    predictor = MemoryPredictor(model(), inputs(), SETUP, graph=ranp.trace(model(), inputs()))
    for row in found.rows:
        widths, side = np.array(row.widths), row.largest_size[0]
        assert row.process_bytes == predictor.predict(widths).process_bytes
        assert row.cost.train_bytes == predictor.predict(widths).peak_bytes
        for name, most in (("batch", row.largest_batch), ("size", side)):
            assert predictor.predict(widths, **{name: most}).process_bytes <= USABLE
            assert predictor.predict(widths, **{name: most + 1}).process_bytes > USABLE
    batches = [row.largest_batch for row in found.rows]
    assert batches == sorted(batches)
    assert batches[-1] > 2 * batches[0]


def test_a_real_step_of_the_largest_batch_fits_and_of_twice_that_does_not(found: FitResult) -> None:
    for row in found.rows:
        small = ranp.prune(model(), inputs(), [], budget=row.budget, criterion="uniform").model
        assert live_peak(small, (inputs(row.largest_batch), None), SETUP) <= LIMIT * MIB
        assert live_peak(small, (inputs(2 * row.largest_batch), None), SETUP) > LIMIT * MIB
        side = row.largest_size[0]
        assert live_peak(small, (inputs(2, side), None), SETUP) <= LIMIT * MIB


def test_the_table(found: FitResult) -> None:
    table = found.table()
    assert table.title == "What fits into 24.000 MiB, of which 10% is left free"
    assert list(table.header) == ["budget", "channels kept", "batch at 12\u00d712\u00d712", "size at batch 2", "memory"]
    assert [row[0] for row in table.rows] == ["macs=1", "macs=0.5", "macs=0.1"]
    assert table.rows[0][1:4] == ["100%", str(found.rows[0].largest_batch), _cube(found.rows[0].largest_size)]
    assert table.title in found._repr_html_()


def _cube(size: tuple[int, ...]) -> str:
    return "\u00d7".join(map(str, size))


def test_measured_times_are_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch)
    times = ranp.measure_times(model(), inputs(), cache=False)
    found = ranp.fit(model(), inputs(), memory="50 MiB", macs=[1, 0.5], times=times)
    for row, shown in zip(found.rows, found.table().rows, strict=True):
        seconds = times.evaluate(row.widths)
        assert row.cost.step_seconds == seconds
        assert shown[-1] == f"{1000 * seconds:,.3f} ms"
    assert found.table().header[-1] == "training step"
    with pytest.raises(InputError, match="times: they are those of another network or input size; measure them again"):
        ranp.fit(model(), inputs(side=16), memory="50 MiB", times=times)


def test_progress_counts_the_rows() -> None:
    calls: list[tuple[str, int, int]] = []
    ranp.fit(model(), inputs(), memory="50 MiB", macs=[1, 0.5], progress=lambda *each: calls.append(each))
    assert calls == [("searching what fits", done, 2) for done in range(3)]


def test_budgets_that_are_not_feasible_or_change_nothing_are_left_out() -> None:
    found = ranp.fit(model(), inputs(), memory="50 MiB", macs=[1, 0.9999, 0.5, 0.0001])
    assert (found.rows[0].budget.macs, found.rows[-1].budget.macs) == (1, 0.5)
    assert len({row.widths for row in found.rows}) == len(found.rows)
    (note,) = found.notes
    assert note.startswith("macs=0.0001 is left out: allocate: got macs=0.0001; expected a feasible budget: macs >= ")
    with pytest.raises(BudgetError, match=r"fit: none of the budgets is feasible; macs=0\.0001 is left out"):
        ranp.fit(model(), inputs(), memory="50 MiB", macs=[0.0001])


def test_too_little_memory_names_the_least() -> None:
    with pytest.raises(BudgetError, match=r"fit: got memory of 0\.098 MiB; expected at least ([0-9.]+) MiB") as error:
        ranp.fit(model(), inputs(), memory="100 KiB", macs=[1, 0.1], multiple=12)
    least = float(str(error.value).partition("at least ")[2].split()[0])
    found = ranp.fit(model(), inputs(), memory=f"{1.001 * least} MiB", macs=[1, 0.1], multiple=12)
    assert found.rows[-1].largest_batch >= 1
    with pytest.raises(BudgetError, match="expected at least"):
        ranp.fit(model(), inputs(), memory=f"{0.999 * least} MiB", macs=[1, 0.1], multiple=12)


@pytest.mark.parametrize("memory", ["11", "11 GHz", "much", 0, "-1 GiB", "2.0", 11.0])
def test_memory_without_a_unit(memory: Any) -> None:
    with pytest.raises(InputError, match=r"memory: got .*; expected an amount in B, .*, such as 11 GiB, or a fraction"):
        ranp.fit(model(), inputs(), memory=memory)


def test_a_fraction_is_one_of_the_device() -> None:
    cpu = torch.device("cpu")
    assert memory_limit("50%", cpu) == memory_limit(0.5, cpu) == memory_limit(None, cpu) / 2
    assert 2**28 < (memory_bytes(cpu) or 0) < 2**50
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="memory: that of the device cuda is not known here; give it"):
            ranp.fit(model(), inputs(), ranp.TrainingSetup(device="cuda"))


def test_a_gpu_that_is_not_there() -> None:
    """In mixed precision activations take about half of the memory."""
    gpu = ranp.TrainingSetup(device="cuda", precision="16-mixed")
    mixed = ranp.fit(model(), inputs(), gpu, memory="20 MiB", macs=[1])
    float32 = ranp.fit(model(), inputs(), ranp.TrainingSetup(device="cuda"), memory="20 MiB", macs=[1])
    assert mixed.margin == 0.1
    assert mixed.rows[0].largest_batch > 1.3 * float32.rows[0].largest_batch > 0


class OneShape(nn.Module):
    """Accepts a single batch size and input size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 16, 3), nn.Linear(16 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.conv(x).view(2, -1))
        return y


def test_what_the_network_does_not_let_change_is_noted() -> None:
    found = ranp.fit(OneShape(), torch.zeros(2, 1, 8, 8), memory="1 MiB", macs=[1])
    assert [note.partition(" (")[0] for note in found.notes] == [
        "the network accepts no other batch size",
        "the network accepts no other input size",
    ]
    assert (found.rows[0].largest_batch, found.rows[0].largest_size) == (2, (8, 8))
    with pytest.raises(BudgetError, match="expected at least"):
        ranp.fit(OneShape(), torch.zeros(2, 1, 8, 8), memory="10 kB", macs=[1])


def test_the_model_does_not_change() -> None:
    net = model()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    ranp.fit(net, inputs(), memory="20 MiB", macs=[0.5])
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
