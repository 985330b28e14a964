"""Measuring training steps at several widths."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ranp.arguments import describe
from ranp.budget import Budget
from ranp.costs.sizes import distinct_axes, sizes_at
from ranp.costs.time import BUSY_SPREAD, Key, StepSample, TimeTable
from ranp.costs.training import TrainingSetup
from ranp.environment import ran_out_of_memory
from ranp.errors import InputError, OutOfMemoryError
from ranp.graph import ChannelGraph, Ints
from ranp.module_utils import preserve_rng
from ranp.plan import make_plan
from ranp.progress import Progress, no_progress
from ranp.surgery import apply
from ranp.timing._operators import StepRecord, step_operators
from ranp.timing._stopwatch import Stopwatch, spread_of, training_step

LEAST_SAMPLES, MOST_SAMPLES = 4, 12
MOST_COMPILED = 3
"""Compiling a model takes much longer than a step."""
ENOUGH_SECONDS = 2.0
"""Long enough for all repetitions of one step, unless the device is busy."""
REPEATS = 3


@dataclass(frozen=True)
class _Measured:
    """A step at some widths, and its operators."""

    sample: StepSample
    record: StepRecord


class StepTimer:
    """Measures training steps of a model at any widths, on copies of it.

    Args:
        model: The full model; it is not changed.
        graph: The traced model.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments); they can be left out where the
            setup has a batch.
        setup: How the model is trained.
    """

    def __init__(
        self, model: nn.Module, graph: ChannelGraph, example_inputs: Any = None, setup: TrainingSetup | None = None
    ) -> None:
        if not graph.groups:
            raise InputError("step times", "the model has no channel that can be removed")
        self.model, self.graph, self.setup = model, graph, setup or TrainingSetup()
        self.device = self.setup.device_of(model)
        self._watch = Stopwatch(self.device)
        self._batch = self.setup.prepare_batch(self.setup.example_batch(example_inputs), self.device)

    @property
    def key(self) -> Key:
        """What the times depend on besides the network."""
        return {**self.setup.key(self.device), "batch": describe(self._batch)}

    def table(self, *, limit_seconds: float = 120, progress: Progress | None = None) -> TimeTable:
        """Measure steps at the full and at smaller widths, and put their operators into a table.

        Args:
            limit_seconds: Measure no further widths after this time (but four in any case).
            progress: Called with how many widths are done, and how many there are.

        Raises:
            OutOfMemoryError: Too few of the steps fit into memory.
        """
        report, begin = progress or no_progress, time.perf_counter()
        wanted = sample_widths(self.graph, MOST_SAMPLES)
        found: list[_Measured] = []
        for number, widths in enumerate(wanted):
            left = limit_seconds - (time.perf_counter() - begin)
            if len(found) >= LEAST_SAMPLES and left <= 0:
                break
            report("measuring step times", number, len(wanted))
            if measured := self._measured(widths, left / (len(wanted) - number), compiled=number < MOST_COMPILED):
                found.append(measured)
        report("measuring step times", len(wanted), len(wanted))
        if len(found) < LEAST_SAMPLES:
            problem = f"only {len(found)} of {len(wanted)} training steps at different widths fit into memory"
            raise OutOfMemoryError("step times", problem, hint="lower the batch size or the input size")
        return self._table(found)

    def refined(self, table: TimeTable, widths: npt.ArrayLike) -> TimeTable:
        """A table that also has the step at some widths, so that it is exact there and more accurate around them.

        Raises:
            OutOfMemoryError: The step does not fit into memory.
        """
        given = np.asarray(widths, dtype=np.int64)
        measured = self._measured(given, ENOUGH_SECONDS, compiled=True)
        if measured is None:
            hint = "lower the batch size or the input size"
            raise OutOfMemoryError("step times", "the training step does not fit into memory", hint=hint)
        seconds = measured.record.seconds
        # Without the operators where others ran than at the widths of the table.
        fits = len(seconds) == table.operator_count
        operators = [sum(seconds[place] for place in each.positions) for each in table.operators] if fits else []
        return table.with_sample(replace(measured.sample, operators=tuple(operators)))

    def step(self, widths: npt.ArrayLike) -> Callable[[], None]:
        """A function that takes a training step of a copy at some widths.

        A first step is taken at once: it makes the optimizer's state, compiles, and lets torch choose implementations.
        """
        run = self._step(np.asarray(widths, dtype=np.int64), self.setup)
        run()
        return run

    def _table(self, found: list[_Measured]) -> TimeTable:
        axes = distinct_axes(self.graph.costs.axes)
        sizes = np.stack([sizes_at(axes, each.sample.widths) for each in found])
        operators, seconds = step_operators([each.record for each in found], sizes, self.device)
        samples = tuple(
            replace(each.sample, operators=tuple(column))
            for each, column in zip(found, seconds.T.tolist(), strict=True)
        )
        count = len(found[0].record.operators)
        return TimeTable(self.key, self.graph.fingerprint, axes, count, tuple(operators), samples)

    def _measured(self, widths: Ints, limit_seconds: float, *, compiled: bool) -> _Measured | None:
        """Measure a step at some widths; None if it does not fit into memory."""
        try:
            with self.setup.limit_threads(), preserve_rng(self.model):
                return self._measure(widths, min(limit_seconds, ENOUGH_SECONDS), compiled=compiled)
        except Exception as error:
            if ran_out_of_memory(error):
                return None
            raise

    def _measure(self, widths: Ints, limit_seconds: float, *, compiled: bool) -> _Measured:
        eager = self._step(widths, replace(self.setup, compile=False))
        # The first step also makes the optimizer's state, and torch chooses implementations.
        spent = self._watch.timed(eager)[0]
        timings: list[tuple[float, float]] = []
        records: list[StepRecord] = []
        while not timings or (spent < limit_seconds and (len(timings) < REPEATS or _busy(timings))):
            timings.append(self._watch.timed(eager))
            records.append(self._watch.recorded(eager, timings[-1][1]))
            spent += 2 * timings[-1][0]
        if self.setup.compile:
            timings = self._compiled_timings(widths) if compiled else []
        seconds = [found for found, _ in timings]
        sample = StepSample(
            widths=tuple(widths.tolist()),
            seconds=min(seconds, default=None),
            launch_seconds=min((found for _, found in timings), default=0.0),
            spread=spread_of(seconds),
            operators=(),
        )
        fastest = np.min([record.seconds for record in records], axis=0).tolist()
        return _Measured(sample, StepRecord(records[0].operators, fastest))

    def _compiled_timings(self, widths: Ints) -> list[tuple[float, float]]:
        step = self._step(widths, self.setup)
        step()
        return [self._watch.timed(step) for _ in range(REPEATS)]

    def _step(self, widths: Ints, setup: TrainingSetup) -> Callable[[], None]:
        return training_step(narrowed(self.model, self.graph, widths), setup, self._batch)


def _busy(timings: list[tuple[float, float]]) -> bool:
    """Whether repeated steps differ so much that more of them are needed."""
    seconds = [found for found, _ in timings]
    return len(seconds) < 3 * REPEATS and spread_of(seconds) > BUSY_SPREAD


def widths_of(graph: ChannelGraph, keep: Mapping[str, Sequence[int]]) -> Ints:
    """The width of every group in a plan, of shape (groups,)."""
    return np.array([len(keep[group.name]) for group in graph.groups], dtype=np.int64)


def narrowed(model: nn.Module, graph: ChannelGraph, widths: npt.ArrayLike) -> nn.Module:
    """A copy of a model with the first channels of every group; widths are of shape (groups,)."""
    counts = np.asarray(widths, dtype=np.int64).tolist()
    keep = {group.name: np.arange(count) for group, count in zip(graph.groups, counts, strict=True)}
    how: dict[str, Any] = {"criterion": "", "importance": "", "resource_weight": 0.0, "seed": 0, "versions": {}}
    return apply(model, make_plan(graph, keep, budget=Budget(macs=1.0), min_width=1, round_to=1, **how))


def sample_widths(graph: ChannelGraph, count: int) -> list[Ints]:
    """Widths at which steps are measured: the full ones, then random ones, of which every other is aligned.

    At the first of them axes must have different sizes, because these tell which axes an operator depends on.
    """
    random, full, axes = np.random.default_rng(0), graph.widths, distinct_axes(graph.costs.axes)

    def draw(alignment: int) -> Ints:
        widths = full * np.exp(random.uniform(np.log(0.1), 0, len(full)))
        # A dimension of size 1 has no layout, and operators treat it specially.
        least = np.minimum(full, np.where(full > 3, max(alignment, 2), 1))
        return np.clip(np.round(widths / alignment) * alignment, least, full).astype(np.int64)

    def distinct(found: list[Ints]) -> int:
        return len(np.unique([sizes_at(axes, widths) for widths in found], axis=1).T)

    drawn = ([full, *(draw(1) for _ in range(LEAST_SAMPLES - 1))] for _ in range(20))
    found = max(drawn, key=distinct)
    return [*found, *(draw(8 if number % 2 else 1) for number in range(1, count - LEAST_SAMPLES + 1))]
