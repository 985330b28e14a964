"""Networks side by side, on a device whose speed is known."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ranp
from helpers.simulated_device import simulate
from helpers.unchanged import assert_unchanged, inputs, network
from ranp.errors import InputError
from ranp.memory import predict_memory
from ranp.timing import Stopwatch, training_step

X = torch.randn(4, 1, 12, 12)


def pair(width: int = 24) -> dict[str, nn.Module]:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2, 3))

    return {"full": build(width), "pruned": build(width // 4)}


def test_steps_and_inference_of_all_networks_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch)
    setup = ranp.TrainingSetup(loss_fn=F.mse_loss, batch=(X, torch.zeros(4, 2, 8, 8)), optimizer="sgd")
    found = ranp.bench(pair(), X, setup)
    watch = Stopwatch(torch.device("cpu"))
    for name, model in pair().items():
        row, step = found.rows[name], training_step(model, setup, setup.batch)
        step()
        assert row.step_seconds == pytest.approx(watch.timed(step)[0])
        assert row.samples_per_second == pytest.approx(4 / row.step_seconds)
        with torch.inference_mode():
            assert row.inference_seconds == pytest.approx(watch.timed(lambda model=model: model.eval()(X))[0])
        assert row.train_bytes == predict_memory(model, X, setup).peak_bytes
        assert row.spread == 0
    assert (found.batch, found.memory, found.warnings) == (4, "predicted", ())


def test_the_table_has_a_column_for_each_network_and_their_ratio() -> None:
    found = ranp.bench(pair(), X, limit_seconds=0)
    table = found.table()
    assert list(table.header) == ["", "full", "pruned", "ratio"]
    assert "float32" in table.title
    values = {row[0]: row[1:] for row in table.rows}
    full, pruned = found.rows["full"], found.rows["pruned"]
    assert values["training step"][0] == f"{(full.step_seconds or 0) * 1e3:,.3f} ms"
    assert values["training step"][2] == f"{(pruned.step_seconds or 0) / (full.step_seconds or 1):.3f}"
    assert values["samples per second"][1] == f"{pruned.samples_per_second:,.2f}"
    assert values["training memory, predicted"][2] == f"{(pruned.train_bytes or 0) / (full.train_bytes or 1):.3f}"
    assert found._repr_html_() == table.html()


def test_the_way_of_training_reaches_the_networks() -> None:
    seen: list[tuple[bool, Any, bool, int]] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            last = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
            if not torch._guards.detect_fake_mode([x]):
                seen.append((self.training, y.dtype, last, torch.get_num_threads()))
            return y

    setup = ranp.TrainingSetup(precision="bf16-mixed", channels_last=True, threads=2)
    ranp.bench({"spy": Spy()}, torch.randn(1, 4, 8, 8), setup, limit_seconds=0)
    assert {state[1:] for state in seen} == {(torch.bfloat16, True, 2)}
    assert {state[0] for state in seen} == {True, False}
    assert torch.get_num_threads() != 2


def test_a_network_that_does_not_fit_into_memory_has_no_times() -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            if self.training and not torch._guards.detect_fake_mode([x]):
                raise torch.OutOfMemoryError("tried to allocate 3 GiB")
            return self.conv(x)

    found = ranp.bench({"full": Greedy(), "pruned": nn.Conv2d(1, 2, 3)}, X, limit_seconds=0)
    assert found.rows["full"].step_seconds is None
    assert found.rows["full"].samples_per_second is None
    assert found.rows["full"].inference_seconds is not None
    assert found.rows["pruned"].step_seconds is not None
    assert "the training step of full does not fit into memory" in found.warnings
    assert next(row for row in found.table().rows if row[0] == "training step")[1::2] == ["-", "-"]


def test_a_busy_device_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch)
    calm, numbers = Stopwatch.timed, iter(range(10**6))
    monkeypatch.setattr(Stopwatch, "timed", lambda *args: (calm(*args)[0] * (1 + next(numbers) % 3), 0.0))
    found = ranp.bench({"net": pair()["full"]}, X)
    assert found.rows["net"].spread == pytest.approx(1)
    assert found.warnings == ("the device was busy: repeated steps of net differed by 100%",)


def test_networks_are_left_alone() -> None:
    model = network()
    assert_unchanged(model, lambda: ranp.bench({"it": model}, inputs(), limit_seconds=0))


def test_errors_come_through() -> None:
    with pytest.raises(InputError, match="bench: there are no networks; for example"):
        ranp.bench({}, X)
    with pytest.raises(ranp.RanpError, match="expected an example of a pair"):
        ranp.bench(pair(), X, ranp.TrainingSetup(loss_fn=F.mse_loss))
