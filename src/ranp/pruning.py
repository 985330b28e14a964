"""The story in one screen: trace, score, allocate, verify, apply."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ranp.allocation import allocate
from ranp.budget import Budget
from ranp.errors import TraceError
from ranp.explorer import survey
from ranp.graph import ChannelGraph
from ranp.plan import Plan
from ranp.report import Report, make_report
from ranp.scores import Scores
from ranp.scoring import score
from ranp.scoring._criteria import Importance
from ranp.scoring._loss import Progress, Step
from ranp.surgery import Verification, Weights, apply, verify
from ranp.tables import html_text
from ranp.tracing import trace


@dataclass(frozen=True, eq=False)
class PruneResult:
    """What `prune` returns.

    Attributes:
        model: The smaller model.
        plan: Every decision, as data.
        graph: What tracing found.
        scores: What the decisions rest on.
        report: What it did, for people.
        verification: What was proven.
    """

    model: nn.Module
    plan: Plan
    graph: ChannelGraph
    scores: Scores
    report: Report
    verification: Verification

    def __rich__(self) -> Report:
        return self.report

    def _repr_html_(self) -> str:
        """What a notebook shows: the report, and how the pruned model was verified."""
        return f"{self.report._repr_html_()}{html_text(f'Verification: {self.verification.status}.')}"

    def survey(self) -> dict[str, Any]:
        """The plan and those of other budgets, as `ranp report` draws them; see `ranp.explorer`."""
        report = self.report
        return survey(
            self.graph,
            self.plan,
            self.scores,
            verification=report.verification,
            warnings=report.warnings,
            seconds=report.seconds,
        )


def prune(
    model: nn.Module,
    example_inputs: Any,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], Any] | None = None,
    *,
    budget: Budget,
    criterion: str = "ranp-f",
    importance: Importance = "parameter",
    resource_weight: float | None = None,
    seed: int = 0,
    min_width: int = 1,
    round_to: int = 1,
    weights: Weights = "keep",
    step: Step | None = None,
    stop_at_correlation: float | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Prune a model once, before training.

    Args:
        model: Any convolutional network; it is left exactly as it was.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments); costs are counted at its shape.
        batches: Yields `(inputs, targets)`; all of it is used for scoring, unless `stop_at_correlation` is given.
        loss_fn: From `(outputs, targets)` to a scalar.
        budget: What the pruned model may cost.
        criterion: `random`, `layerwise`, `vanilla`, `weighted`, `ranp-f`, `ranp-m` or `snip`; or, without regard to
            the data, `uniform` (every group narrower by one factor) or `constant` (all groups of one width).
        importance: `parameter` or `neuron`; see `ranp.score`.
        resource_weight: Weight of the resource term of `ranp-f` and `ranp-m`.
        seed: Seed of whatever is random.
        min_width: Channels that every group keeps at least.
        round_to: Round widths down to multiples of this.
        weights: `keep` the surviving weights, or draw them anew by `glorot` or `orthogonal`.
        step: Instead of `loss_fn`, a function of (model, batch) that returns the loss.
        stop_at_correlation: Score no more batches once the ranking has become stable; see `ranp.score`.
        progress: Called with (what, done, total).

    Returns:
        The smaller model, the plan, the graph, the scores, a report, and what was proven.

    Raises:
        RanpError: Bad input, a model that cannot be pruned, or a budget that cannot be met; nothing has been changed.

    Example:
        >>> import torch
        >>> import ranp
        >>> model = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 3))
        >>> x, y = torch.randn(2, 1, 8, 8, 8), torch.randn(2, 2, 4, 4, 4)
        >>> result = ranp.prune(model, x, [(x, y)], nn.functional.mse_loss, budget=ranp.Budget(macs=0.5))
        >>> result.plan.widths
        {'0': 4, '2': 2}
        >>> result.verification.status
        'exact'
    """
    clock = _Clock(progress)
    with clock("tracing"):
        graph = trace(model, example_inputs)
        require_channels(graph)
        # A budget that no plan can meet is refused before any batch is scored.
        _dry_run(graph, budget, min_width, round_to)
    with clock("scoring"):
        scores = score(
            model,
            graph,
            batches,
            loss_fn,
            criterion=criterion,
            importance=importance,
            resource_weight=resource_weight,
            seed=seed,
            step=step,
            stop_at_correlation=stop_at_correlation,
            progress=progress,
        )
    with clock("allocating"):
        plan = allocate(graph, scores, budget, min_width=min_width, round_to=round_to)
    with clock("verifying"):
        verification = verify(model, plan, example_inputs)
    with clock("applying"):
        small = apply(model, plan, weights=weights, seed=seed)
    status, note = verification.status, verification.note
    report = make_report(graph, plan, verification=status, note=note, seconds=clock.seconds)
    return PruneResult(small, plan, graph, scores, report, verification)


def _dry_run(graph: ChannelGraph, budget: Budget, min_width: int, round_to: int) -> None:
    flat = Scores("", "", 0.0, 0, {}, np.zeros(len(graph.group_of)), 0)
    allocate(graph, flat, budget, min_width=min_width, round_to=round_to)


def require_channels(graph: ChannelGraph) -> None:
    """Refuse a model in which nothing can be pruned.

    Raises:
        TraceError: It is one; the message says what keeps its channels.
    """
    if graph.groups:
        return
    reasons = "; ".join(
        f"{entry.operator} in {entry.path or 'the model'} {entry.reason}" for entry in graph.unprunable[:3]
    )
    raise TraceError(
        "model",
        got=f"no channel that may be removed ({reasons or 'no convolution or linear layer ran'})",
        expected="a network with at least one layer between its input and its output",
    )


class _Clock:
    """Seconds of each step; tells the progress callback when one begins and ends."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        begin = time.perf_counter()
        if self._progress is not None and what != "scoring":
            self._progress(what, 0, 1)
        yield
        self.seconds[what] = time.perf_counter() - begin
        if self._progress is not None and what != "scoring":
            self._progress(what, 1, 1)
