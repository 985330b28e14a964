"""Which widths, batch sizes and input sizes fit into the memory of a device, without running a training step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ranp.allocation import allocated_widths
from ranp.budget import Budget
from ranp.costs import RESOURCES, Cost
from ranp.costs.resources import BYTES
from ranp.costs.time import TimeTable
from ranp.costs.training import TrainingSetup
from ranp.environment import memory_bytes
from ranp.errors import BudgetError, InputError, TraceError
from ranp.graph import ChannelGraph, Ints
from ranp.memory import MARGIN, MemoryPredictor, Size, largest_batch, largest_size, size_multiple
from ranp.progress import Progress, no_progress
from ranp.scoring import score
from ranp.tables import Table
from ranp.tracing import Rule, trace

FRACTIONS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
CRITERION = "uniform"
"""With this criterion the budget of a row gives its widths, whatever the data are."""
_MEMORY, _TIME = (next(each for each in RESOURCES if each.limit == name) for name in ("train_memory", "step_time"))


@dataclass(frozen=True)
class FitRow:
    """What fits at one width.

    Attributes:
        budget: The budget that leads to this width with the criterion `uniform`.
        widths: Width of every group of the graph.
        cost: Cost at the shape of the example; `train_bytes` is the memory of all tensors at the peak of a step.
        process_bytes: The same, with an estimate of what operators allocate while they run: what has to fit.
        largest_batch: The largest batch at the size of the example; 0 if none fits.
        largest_size: The largest spatial size at the batch of the example; empty if none fits.
    """

    budget: Budget
    widths: tuple[int, ...]
    cost: Cost
    process_bytes: int
    largest_batch: int
    largest_size: tuple[int, ...]


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes:
        memory_bytes: The memory that training may take.
        margin: The share of it that is left free.
        batch: Number of samples of the example.
        size: Spatial size of the example.
        full_widths: Width of every group of the full network.
        full_cost: Cost of the full network.
        rows: One for each width, the full network first.
        notes: What had to be assumed or left out.
    """

    memory_bytes: int
    margin: float
    batch: int
    size: tuple[int, ...]
    full_widths: tuple[int, ...]
    full_cost: Cost
    rows: tuple[FitRow, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> Table:
        """One row for each width."""
        free = f", of which {self.margin:.0%} is left free" if self.margin else ""
        head = ["budget", "channels kept", f"batch at {_sides(self.size)}", f"size at batch {self.batch}", "memory"]
        timed = self.full_cost.step_seconds is not None
        rows = [
            [
                str(row.budget),
                f"{sum(row.widths) / max(sum(self.full_widths), 1):.0%}",
                str(row.largest_batch or "-"),
                _sides(row.largest_size) or "-",
                _MEMORY.text(row.process_bytes),
                *([_TIME.text(row.cost.step_seconds or 0)] if timed else []),
            ]
            for row in self.rows
        ]
        title = f"What fits into {_MEMORY.text(self.memory_bytes)}{free}"
        return Table(title, [*head, *(["training step"] if timed else [])], rows)

    def __rich__(self) -> Any:
        return self.table().rich()

    def _repr_html_(self) -> str:
        return self.table().html()


def _sides(size: Sequence[int]) -> str:
    return "\u00d7".join(map(str, size))


def fit(
    model: nn.Module,
    example_inputs: Any,
    setup: TrainingSetup | None = None,
    *,
    memory: float | str | None = None,
    macs: Sequence[float | str] = FRACTIONS,
    multiple: Size | None = None,
    times: TimeTable | None = None,
    rules: Mapping[str, Rule] | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """For several widths, the largest batch and the largest inputs whose training step fits into memory.

    No step is run; see `ranp.memory.MemoryPredictor`. Widths are those of `ranp.prune` with the criterion `uniform`:
    all layers become narrower by the same factor, rounded to what devices like. Other criteria distribute the same
    multiply-adds differently, and need about as much memory.

    Args:
        model: Any convolutional network; it is left exactly as it was.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments), with the batch size and input
            size of the training.
        setup: How the model is trained. Its device need not exist on this machine.
        memory: The memory that training may take: an amount such as `"11 GiB"`, or a fraction of the device's memory;
            by default all of it.
        macs: Multiply-adds to keep, as in `Budget(macs=...)`, one for each row.
        multiple: Sides of inputs are multiples of this; see `ranp.memory.largest_size`.
        times: Step times from `ranp.measure_times`, for a column with the predicted duration of a step.
        rules: Rules for operators of your own; see `ranp.trace`.
        progress: Called with how many rows are done, and how many there are.

    Raises:
        InputError: The memory is neither an amount nor a fraction, or not known; times of another network.
        BudgetError: Not a single sample fits, at any width.
        TraceError: The model cannot be traced.

    Example:
        >>> model = nn.Sequential(nn.Conv3d(1, 16, 3), nn.ReLU(), nn.Conv3d(16, 2, 3))
        >>> found = fit(model, torch.zeros(2, 1, 16, 16, 16), memory="20 MiB", macs=[1, 0.5])
        >>> [(row.widths, row.largest_batch > 10) for row in found.rows]
        [((16,), True), ((8,), True)]
        >>> found.rows[1].largest_batch > found.rows[0].largest_batch
        True
    """
    report = progress or no_progress
    graph = trace(model, example_inputs, rules=rules)
    if times is not None:
        if times.network != graph.fingerprint:
            raise InputError("times", "they are those of another network or input size", hint="measure them again")
        graph = graph.with_costs(step_seconds=times)
    predictor = MemoryPredictor(model, example_inputs, setup, graph=graph)
    limit, notes, rows = memory_limit(memory, predictor.target), list[str](), list[FitRow]()
    found, search = list(_narrowed(graph, macs, notes)), _Search(predictor, limit, multiple)
    for number, (budget, widths) in enumerate(found):
        report("searching what fits", number, len(found))
        rows.append(search.row(graph, budget, widths))
    report("searching what fits", len(found), len(found))
    if not any(row.largest_batch or row.largest_size for row in rows):
        raise search.too_little(found[-1][1])
    return FitResult(
        memory_bytes=int(limit),
        margin=MARGIN,
        batch=predictor.batch,
        size=predictor.size,
        full_widths=tuple(graph.widths.tolist()),
        full_cost=graph.cost(),
        rows=tuple(rows),
        notes=(*notes, *search.notes, *predictor.predict().notes),
    )


def memory_limit(memory: float | str | None, device: torch.device) -> float:
    """Bytes that training may take: an amount with a unit, or a fraction of the device's memory.

    Raises:
        InputError: It is neither, or the device's memory is not known.

    Example:
        >>> memory_limit("8 GiB", torch.device("cpu")) == 2 * memory_limit("4096 MiB", torch.device("cpu"))
        True
    """
    try:
        limit = _MEMORY.parse(1.0 if memory is None else memory)
    except ValueError as error:
        expected = f"an amount in {', '.join(BYTES)}, such as 11 GiB, or a fraction of the device's memory"
        raise InputError("memory", got=repr(memory), expected=expected) from error
    total = 0 if isinstance(limit, str) else memory_bytes(device)
    if total is None:
        raise InputError("memory", f"that of the device {device} is not known here", hint="give it, such as 11 GiB")
    return _MEMORY.most(limit, total)


def _narrowed(graph: ChannelGraph, macs: Sequence[float | str], notes: list[str]) -> Iterator[tuple[Budget, Ints]]:
    """Budgets and the widths that they lead to, without those that are not feasible or change nothing."""
    scores, last = score(nn.Identity(), graph, [], criterion=CRITERION), None
    for budget in (Budget(macs=fraction) for fraction in macs):
        try:
            widths = allocated_widths(graph, scores, budget)
        except BudgetError as error:
            notes.append(f"{budget} is left out: {error}")
            continue
        if last is None or (widths != last).any():
            yield budget, widths
        last = widths
    if last is None:
        raise BudgetError("fit", "none of the budgets is feasible", hint="; ".join(notes))


class _Search:
    """Searches the largest batch and the largest size at given widths.

    What the network does not let change is noted, and stays as it is in the example.
    """

    def __init__(self, predictor: MemoryPredictor, limit: float, multiple: Size | None) -> None:
        self.notes: list[str] = []
        self._predictor, self._limit = predictor, limit
        self._multiple = multiple
        try:
            predictor.predict(batch=predictor.batch + 1)
            self._least_batch = 1
        except TraceError as error:
            self.notes.append(f"the network accepts no other batch size ({error})")
            self._least_batch = predictor.batch
        try:
            self._multiple = multiple or size_multiple(predictor)
        except InputError:
            self.notes.append("the network accepts no other input size")

    def row(self, graph: ChannelGraph, budget: Budget, widths: Ints) -> FitRow:
        """What fits at these widths."""
        predictor, limit = self._predictor, self._limit
        predicted = predictor.predict(widths)
        fits = predicted.process_bytes <= limit * (1 - MARGIN)
        batch, size = (predictor.batch, predictor.size) if fits else (0, ())
        if self._least_batch == 1:
            batch = largest_batch(predictor, limit, widths=widths)
        if self._multiple is not None:
            size = largest_size(predictor, limit, widths=widths, aspect=predictor.size, multiple=self._multiple)
        cost = replace(graph.cost(widths), train_bytes=predicted.peak_bytes)
        return FitRow(budget, tuple(widths.tolist()), cost, predicted.process_bytes, batch, size)

    def too_little(self, widths: Ints) -> BudgetError:
        """The error that nothing fits at these widths."""
        # A single sample may take more than two: torch computes narrow convolutions of one sample differently.
        batches = {self._least_batch, self._predictor.batch}
        least, batch = min((self._predictor.predict(widths, batch=each).process_bytes, each) for each in batches)
        needed = _MEMORY.text(least / (1 - MARGIN))
        expected = f"at least {needed}, which the narrowest network takes at a batch of {batch}"
        got = f"memory of {_MEMORY.text(self._limit)}"
        return BudgetError("fit", got=got, expected=expected, hint="give more memory, or smaller inputs")
