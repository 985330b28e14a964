"""The time of a training step at any widths, from measurements at a few.

A table holds the operators of a training step whose size depends on the widths, and how long each of them took in steps
that were run at some widths. `ranp.timing` measures it; evaluating it needs no model.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ranp.costs._operator_times import Loads, fit, nonnegative_least_squares
from ranp.costs.formulas import Sizes
from ranp.costs.sizes import Size, SizeArray, sizes_at

Floats: TypeAlias = npt.NDArray[np.float64]
Key: TypeAlias = Mapping[str, str | int | bool]

BUSY_SPREAD = 0.2
"""If repeated measurements differ by more than this, relatively, the device is busy with something else."""
MOST_ABOVE = 0.05
"""A measured step may be longer than requested by this, relatively: as much as repeated measurements differ."""
_NEARBY = 0.15
"""Root mean square difference of widths, as logarithms to base 2, within which a measured step says how far off is."""


@dataclass(frozen=True)
class TimedOperator:
    """An operator of a training step whose size depends on the widths.

    Attributes:
        positions: Its number among all operators of the step; several where these count as one.
        families: Names of the families it belongs to, each with the least number of input channels for which it does:
            torch chooses the implementation of a convolution by its size. Operators of a family differ in size only.
        volume: Terms of a sum: at how many positions a convolution or matrix product multiplies channels; for any other
            operator, how many elements it reads and writes.
        inputs: Input channels of a convolution or matrix product, 1 for others.
        outputs: Output channels, likewise.
    """

    positions: tuple[int, ...]
    families: tuple[tuple[int, str], ...]
    volume: tuple[Size, ...]
    inputs: Size
    outputs: Size

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies channels by channels."""
        return self.inputs != Size(1) or self.outputs != Size(1)


@dataclass(frozen=True)
class StepSample:
    """A training step that was measured.

    Attributes:
        widths: Of all groups.
        seconds: Its duration; None if only the operators were measured.
        launch_seconds: How long the processor needed to start its operators, if a GPU executes them; otherwise 0.
        spread: How much longer than the shortest of the repeated steps their median was, relatively.
        operators: Seconds of each operator of the table; empty where others ran.
    """

    widths: tuple[int, ...]
    seconds: float | None
    launch_seconds: float
    spread: float
    operators: tuple[float, ...]


@dataclass(frozen=True)
class MeasuredStep:
    """What a budget requests of a training step's time, and what was predicted and measured, in seconds.

    Attributes:
        requested: The most that the budget permits.
        predicted: For the pruned network, from the table.
        measured: For the pruned network; None if its step does not fit into memory.
        full: Measured for the full network; None if its step does not fit into memory.
        spread: How much repeated steps differed, relatively; see `StepSample`.
    """

    requested: float
    predicted: float
    measured: float | None
    full: float | None
    spread: float

    @property
    def distance(self) -> float:
        """How far the measured time is from the requested one, relatively; more than 1 where it is too long."""
        if self.measured is None:
            return float("inf")
        found = self.measured / self.requested - 1
        return found + 1 if found > MOST_ABOVE else abs(found)

    @property
    def warnings(self) -> list[str]:
        """What a user should know, in sentences."""
        if self.measured is None:
            return ["the time of a step was not measured: the pruned network's step does not fit into memory"]
        found = (
            [f"the device was busy: repeated steps differed by {self.spread:.0%}"] if self.spread > BUSY_SPREAD else []
        )
        if self.measured > self.requested * (1 + MOST_ABOVE):
            found.append(
                f"a training step takes {self.measured * 1e3:.4g} ms, not the requested {self.requested * 1e3:.4g} ms: "
                "measured steps of the plans are longer than predicted; lower the budget"
            )
        return found


@dataclass(frozen=True, eq=False)
class TimeTable:
    """Seconds of a training step as a function of the kept widths, at one batch size and input size.

    `graph.with_costs(step_seconds=table).cost(widths).step_seconds` evaluates it, in about a millisecond.

    Attributes:
        key: What times depend on besides the network: device, version of torch, precision, and so on.
        network: `ChannelGraph.fingerprint` of the network.
        axes: Linear forms, of shape (axes, groups + 1): the size of an axis is its row times (widths, 1).
        operator_count: Number of all operators of a step.
        operators: Those whose size depends on the widths.
        samples: Steps that were measured.
    """

    key: Key
    network: str
    axes: Sizes = field(repr=False)
    operator_count: int
    operators: tuple[TimedOperator, ...] = field(repr=False)
    samples: tuple[StepSample, ...] = field(repr=False)

    def evaluate(self, widths: npt.ArrayLike) -> float:
        """Predicted seconds of a step, given the width of every group, of shape (groups,)."""
        return self._model.seconds(np.asarray(widths, dtype=np.int64))

    def with_sample(self, sample: StepSample) -> "TimeTable":
        """A table with another measured step, which replaces one at the same widths."""
        others = tuple(entry for entry in self.samples if entry.widths != sample.widths)
        return replace(self, samples=(*others, sample))

    @property
    def spread(self) -> float:
        """`StepSample.spread` in the median of all samples."""
        return statistics.median(sample.spread for sample in self.samples)

    @property
    def warnings(self) -> list[str]:
        """What makes the table unreliable, in sentences."""
        if self.spread <= BUSY_SPREAD:
            return []
        return [f"the device was busy while step times were measured: repeated steps differed by {self.spread:.0%}"]

    @cached_property
    def _model(self) -> "_StepModel":
        return _StepModel(self)


class _StepModel:
    """Evaluates a table: the sum of its operators, and what a step takes beyond them."""

    def __init__(self, table: TimeTable) -> None:
        self._axes = table.axes
        self._operators = _OperatorLoads(table.operators)
        self._multiplies = np.array([each.multiplies for each in table.operators])
        widths = np.array([sample.widths for sample in table.samples])
        loads = [self._operators.at(sizes_at(table.axes, each)) for each in widths]
        known = [number for number, sample in enumerate(table.samples) if sample.operators]
        seconds = np.array([table.samples[number].operators for number in known]).T
        at = Loads.stack([loads[number] for number in known])
        self._times = fit(at, np.maximum(seconds, 1e-9), self._operators.families)
        done = [number for number, sample in enumerate(table.samples) if sample.seconds is not None]
        measured = np.array([table.samples[number].seconds for number in done], dtype=np.float64)
        self._floor = min(sample.launch_seconds for sample in table.samples)
        parts = np.array([self._parts(loads[number]) for number in done])
        self._scales = _scales(parts, measured, self._floor, compiled=bool(table.key.get("compile")))
        self._measured_at = np.log2(widths[done])
        self._deviations = np.log(measured / np.maximum(parts @ self._scales, self._floor))

    def seconds(self, widths: Sizes) -> float:
        """Predicted seconds of a step."""
        base = max(self._parts(self._operators.at(sizes_at(self._axes, widths))) @ self._scales, self._floor)
        distance = ((np.log2(np.maximum(widths, 1)) - self._measured_at) ** 2).mean(axis=1)
        near = np.exp(-distance / (2 * _NEARBY**2))
        return float(base * np.exp(near @ self._deviations / max(near.sum(), 1)))

    def _parts(self, loads: Loads) -> Floats:
        """Seconds of products and of other operators, and 1 for the rest of the step."""
        found = self._times.seconds(loads)
        return np.array([found[self._multiplies].sum(), found[~self._multiplies].sum(), 1.0])


def _scales(parts: Floats, measured: Floats, floor: float, *, compiled: bool) -> Floats:
    """What the parts of a step count, such that relative errors are least.

    A compiled step runs its operators differently, so its scales are fitted; otherwise only the rest of the step is.
    Steps that take no longer than starting their operators are left out: they say nothing about these.
    """
    counts = measured > 1.05 * floor
    if counts.any():
        parts, measured = parts[counts], measured[counts]
    weight = 1 / measured
    if compiled:
        # With a single step there is one scale for all operators.
        rows = parts if len(parts) > 2 else np.stack([parts[:, :2].sum(axis=1)], axis=1)
        found = nonnegative_least_squares(rows * weight[:, None], np.ones(len(rows)))
        return found if len(found) > 1 else np.array([found[0], found[0], 0.0])
    rest = measured - parts[:, :2].sum(axis=1)
    return np.array([1.0, 1.0, (weight**2 * rest).sum() / (weight**2).sum()])


class _OperatorLoads:
    """Sizes of a table's operators at any widths.

    Attributes:
        families: Their names.
    """

    def __init__(self, operators: Sequence[TimedOperator]) -> None:
        terms = [(number, term) for number, each in enumerate(operators) for term in each.volume]
        self._owner = np.array([number for number, _ in terms], dtype=np.int64)
        self._volume = SizeArray([term for _, term in terms])
        self._inputs = SizeArray([each.inputs for each in operators])
        self._outputs = SizeArray([each.outputs for each in operators])
        self.families = list(dict.fromkeys(name for each in operators for _, name in each.families))
        numbers = {name: number for number, name in enumerate(self.families)}
        most = max((len(each.families) for each in operators), default=1)
        self._starts = np.full((len(operators), most), np.iinfo(np.int64).max)
        self._family = np.zeros((len(operators), most), dtype=np.int64)
        for row, each in enumerate(operators):
            for place, (start, name) in enumerate(each.families):
                self._starts[row, place], self._family[row, place] = start, numbers[name]

    def at(self, sizes: Sizes) -> Loads:
        """Their sizes, given the size of every axis."""
        inputs, outputs = self._inputs.at(sizes), self._outputs.at(sizes)
        place = (inputs[:, None] >= self._starts).sum(axis=1) - 1
        family: Sizes = self._family[np.arange(len(inputs)), place]
        volume = np.bincount(self._owner, self._volume.at(sizes), len(inputs)).astype(np.float64)
        return Loads(family, volume, inputs.astype(np.float64), outputs.astype(np.float64))
