"""What training and inference take: several networks side by side, measured on the user's device."""

import copy
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ranp.costs import RESOURCES
from ranp.costs.time import BUSY_SPREAD
from ranp.costs.training import TrainingSetup
from ranp.environment import ran_out_of_memory
from ranp.errors import InputError
from ranp.memory import predict_memory
from ranp.module_utils import call_model, preserve_rng, tensors_in
from ranp.progress import Progress, no_progress
from ranp.tables import Table
from ranp.timing import Stopwatch, spread_of, training_step

_TIME, _MEMORY = (next(each for each in RESOURCES if each.limit == name) for name in ("step_time", "train_memory"))


@dataclass(frozen=True)
class BenchRow:
    """What one network takes; None where it does not fit into memory.

    Attributes:
        step_seconds: Median duration of a training step.
        samples_per_second: Samples that are trained on in a second.
        inference_seconds: Median duration of a forward pass on the example inputs, in eval mode and without gradients.
        train_bytes: Peak memory of a training step.
        spread: How much repeated steps differed: the median relative to the shortest, minus 1.
    """

    step_seconds: float | None
    samples_per_second: float | None
    inference_seconds: float | None
    train_bytes: int | None
    spread: float


@dataclass(frozen=True)
class BenchResult:
    """What `bench` returns.

    Attributes:
        rows: One for each network, by name.
        key: Device, version of torch and way of training.
        batch: Number of samples in the training batch.
        memory: `measured` (on a GPU, by its allocator) or `predicted` (the tensors of a step that is not compiled).
        warnings: What makes the results unreliable.
    """

    rows: Mapping[str, BenchRow]
    key: Mapping[str, str | int | bool]
    batch: int
    memory: str
    warnings: tuple[str, ...]

    def table(self) -> Table:
        """A column for each network, and the ratio of the last to the first."""
        found = list(self.rows.values())
        lines: list[tuple[str, list[float | None], Callable[[float], str]]] = [
            ("training step", [row.step_seconds for row in found], _TIME.text),
            ("samples per second", [row.samples_per_second for row in found], "{:,.2f}".format),
            ("inference", [row.inference_seconds for row in found], _TIME.text),
            (f"training memory, {self.memory}", [row.train_bytes for row in found], _MEMORY.text),
        ]
        rows = [
            [label, *("-" if value is None else text(value) for value in values), _ratio(values[0], values[-1])]
            for label, values, text in lines
        ]
        title = f"Batch of {self.batch}, {self.key['precision']}, {self.key['device']}"
        return Table(title, ["", *self.rows, "ratio"], rows)

    def __rich__(self) -> Any:
        return self.table().rich()

    def _repr_html_(self) -> str:
        return self.table().html()


def _ratio(first: float | None, last: float | None) -> str:
    return f"{last / first:.3f}" if first and last else "-"


def bench(
    networks: Mapping[str, nn.Module],
    example_inputs: Any,
    setup: TrainingSetup | None = None,
    *,
    limit_seconds: float = 60,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure training steps and inference of several networks, which take turns on the device.

    Args:
        networks: Networks by name, such as the full and the pruned one; copies of them are run.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments), of the batch size and input size
            in training. Steps take the batch of the setup, where it has one.
        setup: How the networks are trained; see `ranp.TrainingSetup`.
        limit_seconds: Repeat steps and inference no more than three times each after this time.
        progress: Called with how many parts are done, and how many there are.

    Raises:
        InputError: No networks.

    Example:
        >>> import ranp
        >>> model, x = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 2, 3)), torch.zeros(4, 1, 32, 32)
        >>> small = ranp.prune(model, x, [], budget=ranp.Budget(macs=0.1), criterion="uniform").model
        >>> found = ranp.bench({"full": model, "pruned": small}, x)
        >>> found.rows["pruned"].step_seconds < found.rows["full"].step_seconds
        True
    """
    if not networks:
        raise InputError("bench", "there are no networks", hint="for example {'full': model, 'pruned': small}")
    measuring = _Measuring(networks, example_inputs, setup or TrainingSetup(), limit_seconds / 2)
    report, parts = progress or no_progress, 3
    with measuring.setup.limit_threads(), preserve_rng(next(iter(networks.values()))):
        report("measuring", 0, parts)
        bytes_of = {name: measuring.train_bytes(name) for name in networks}
        report("measuring", 1, parts)
        steps = measuring.seconds(measuring.step)
        report("measuring", 2, parts)
        inference = measuring.seconds(measuring.inference)
        report("measuring", 3, parts)
    return measuring.result(bytes_of, steps, inference)


class _Measuring:
    """Measures networks on one device in one way of training."""

    def __init__(
        self, networks: Mapping[str, nn.Module], example_inputs: Any, setup: TrainingSetup, limit_seconds: float
    ) -> None:
        self.networks, self.setup, self._limit = networks, setup, limit_seconds
        self.device = setup.device_of(next(iter(networks.values())))
        self._watch = Stopwatch(self.device)
        self._example = example_inputs
        self._inputs = setup.prepare_batch(example_inputs, self.device)
        self._batch = setup.prepare_batch(setup.example_batch(example_inputs), self.device)

    def step(self, name: str) -> Callable[[], object]:
        """A function that takes a training step of a network."""
        return training_step(copy.deepcopy(self.networks[name]), self.setup, self._batch)

    def inference(self, name: str) -> Callable[[], object]:
        """A function that runs a network in eval mode without gradients."""
        model = self.setup.prepare(copy.deepcopy(self.networks[name])).eval()

        def run() -> None:
            with torch.inference_mode(), self.setup.autocast(self.device):
                call_model(model, self._inputs)

        return run

    def seconds(self, make: Callable[[str], Callable[[], object]]) -> dict[str, list[float]]:
        """Seconds of the functions of all networks that fit into memory."""
        runs: dict[str, Callable[[], object]] = {}
        for name in self.networks:
            try:
                run = make(name)
                run()  # The first time, memory is allocated and implementations are chosen.
                runs[name] = run
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
        return self._watch.in_turns(runs, self._limit)

    def train_bytes(self, name: str) -> int | None:
        """Peak memory of a training step: measured on a GPU, otherwise predicted."""
        if self.device.type != "cuda":
            return predict_memory(self.networks[name], self._example, self.setup).peak_bytes
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            step = self.step(name)
            step()
            step()  # From the second step on the optimizer has a state.
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            return None
        return torch.cuda.max_memory_allocated(self.device) - before

    def result(
        self, train_bytes: Mapping[str, int | None], steps: Mapping[str, list[float]], inference: Mapping[str, Any]
    ) -> BenchResult:
        """All results as one table."""
        batch = int(next(iter(tensors_in(self._batch))).shape[0])
        rows = {}
        for name in self.networks:
            step = _median(steps.get(name, ()))
            rows[name] = BenchRow(
                step_seconds=step,
                samples_per_second=batch / step if step else None,
                inference_seconds=_median(inference.get(name, ())),
                train_bytes=train_bytes[name],
                spread=spread_of(steps.get(name, ())),
            )
        memory = "measured" if self.device.type == "cuda" else "predicted"
        return BenchResult(rows, self.setup.key(self.device), batch, memory, tuple(_warnings(rows)))


def _median(seconds: Iterable[float]) -> float | None:
    found = list(seconds)
    return statistics.median(found) if found else None


def _warnings(rows: Mapping[str, BenchRow]) -> Iterable[str]:
    for name, row in rows.items():
        if row.step_seconds is None:
            yield f"the training step of {name} does not fit into memory"
        if row.spread > BUSY_SPREAD:
            yield f"the device was busy: repeated steps of {name} differed by {row.spread:.0%}"
