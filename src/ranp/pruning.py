"""The whole pipeline in one screen: trace, score, allocate, verify, apply."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ranp.allocation import Balanced, allocate, policy_named, require_feasible_budget
from ranp.arguments import Count, Seed, checked
from ranp.budget import Budget
from ranp.costs import Resource
from ranp.costs.time import TimeTable
from ranp.costs.training import TrainingSetup
from ranp.criteria import Criterion, Importance, ResourceWeight, criterion_named
from ranp.deprecation import renamed_arguments
from ranp.errors import TraceError
from ranp.explorer import survey
from ranp.graph import ChannelGraph
from ranp.module_utils import Inputs, ModelWithValues
from ranp.plan import Plan
from ranp.progress import Progress, no_progress
from ranp.report import Report, make_report
from ranp.scores import Scores
from ranp.scoring import Correlation, ProcessGroup, Step, score
from ranp.surgery import Verification, Weights, apply, verify
from ranp.tables import html_text
from ranp.timing import StepTimer, meet_step_time
from ranp.tracing import Rule, trace
from ranp.training_costs import with_training_costs


@dataclass(frozen=True, eq=False)
class PruneResult:
    """What `prune` returns.

    Attributes:
        model: The smaller model.
        plan: Every decision, as data.
        graph: The channels of the full model, from tracing.
        scores: The scores that the plan is based on.
        report: Costs and widths before and after, and warnings.
        verification: How the pruned model was verified.
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
        """For notebooks: the report, and how the pruned model was verified."""
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


@renamed_arguments(lam="resource_weight", until="stop_at_correlation")
@checked
def prune(
    model: ModelWithValues,
    example_inputs: Inputs,
    batches: Iterable[Any] | None,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    *,
    budget: Budget,
    criterion: str | Criterion = "ranp-f",
    importance: Importance = "parameter",
    resource_weight: ResourceWeight | None = None,
    seed: Seed = 0,
    policy: str | Balanced = "threshold",
    min_width: Count | None = None,
    round_to: Count | None = None,
    weights: Weights = "keep",
    step: Step | None = None,
    stop_at_correlation: Correlation | None = None,
    process_group: ProcessGroup | None = None,
    rules: Mapping[str, Rule] | None = None,
    resources: Sequence[Resource] = (),
    setup: TrainingSetup | None = None,
    times: TimeTable | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Prune a model once, before training.

    Args:
        model: Any convolutional network; it is left exactly as it was.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments); costs are counted at its shape.
        batches: Yields `(inputs, targets)`; all of it is used for scoring, unless `stop_at_correlation` is given.
        loss_fn: From `(outputs, targets)` to a scalar.
        budget: What the pruned model may cost.
        criterion: A name in `ranp.criteria.CRITERIA`, or a `Criterion` of your own. `uniform`, `constant` and `random`
            need neither batches nor a loss.
        importance: `parameter` or `neuron`; see `ranp.score`.
        resource_weight: Weight of the resource term of `ranp-f`, `ranp-m` and `ranp-t`; 11 by default.
        seed: Seed of all random numbers.
        policy: How widths follow from scores and budget, `threshold` or `balanced`; see `ranp.allocate`.
        min_width: Channels that every group keeps at least; by default a guard against bottlenecks.
        round_to: Widths are multiples of this, or full; by default of 8, where groups are wide enough.
        weights: `keep` the remaining weights, or initialize them by `glorot` or `orthogonal`.
        step: Instead of `loss_fn`, a function of (model, batch) that returns the loss.
        stop_at_correlation: Score no more batches once the ranking has become stable; see `ranp.score`.
        process_group: Processes that score together, each its own batches; see `ranp.score`.
        rules: Rules for operators of your own; see `ranp.trace`.
        resources: Resources of your own that the budget limits; see `ranp.allocate`.
        setup: How the network is trained, for a budget on `step_time` or `train_memory`, and for `ranp-t`; by default
            on the example inputs, see `ranp.TrainingSetup`. A budget on time is met by measurement: steps of the full
            and the pruned network take turns, and the plan is corrected, at most three times.
        times: Measured step times; by default `ranp.measure_times` measures them where they are needed.
        progress: Called with the name of the step, how much of it is done, and how much there is (0 if unknown).

    Returns:
        The smaller model, the plan, the graph, the scores, a report, and how it was verified.

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
    seconds: dict[str, float] = {}
    widths: dict[str, Any] = {"min_width": min_width, "round_to": round_to, "resources": resources}
    timed = partial(_timed, seconds=seconds, progress=progress)
    with timed("tracing"):
        graph = trace(model, example_inputs, rules=rules)
        require_channels(graph)
        # Refused before anything is measured or any batch is scored.
        policy_named(policy)
        needed = {*dict(budget.given()), *(["step_time"] if criterion_named(criterion).needs_step_time else [])}
    with timed("checking budget"):
        training: dict[str, Any] = {"setup": setup, "times": times, "progress": progress}
        graph = with_training_costs(model, example_inputs, graph, needed, **training)
        require_feasible_budget(graph, budget, **widths)
    with timed("scoring"):
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
            process_group=process_group,
            progress=progress,
        )

    def within(limits: Budget) -> Plan:
        return allocate(graph, scores, limits, policy=policy, **widths)

    with timed("allocating"):
        if budget.step_time is None:
            plan, measured = within(budget), None
        else:
            plan, measured = meet_step_time(StepTimer(model, graph, example_inputs, setup), budget, within, progress)
    with timed("verifying"):
        verification = verify(model, plan, example_inputs)
    with timed("applying"):
        small = apply(model, plan, weights=weights, seed=seed)
    status, note = verification.status, verification.warning
    report = make_report(graph, plan, verification=status, note=note, seconds=seconds, step_time=measured)
    return PruneResult(small, plan, graph, scores, report, verification)


def require_channels(graph: ChannelGraph) -> None:
    """Refuse a model in which nothing can be pruned.

    Raises:
        TraceError: The graph has no groups; the message names the operators that prevent pruning.
    """
    if graph.groups:
        return
    found = [f"{entry.operator} in {entry.path or 'the model'} {entry.reason}" for entry in graph.unprunable[:3]]
    reasons = "; ".join(found) or "no convolution or linear layer ran"
    hint = "pruning needs at least one layer between the input and the output"
    raise TraceError("model", f"it has no channel that can be removed ({reasons})", hint=hint)


@contextmanager
def _timed(what: str, seconds: dict[str, float], progress: Progress | None) -> Iterator[None]:
    """Measure the seconds of a step, and report when it begins and ends; scoring reports its own progress."""
    report = no_progress if progress is None or what == "scoring" else progress
    begin = time.perf_counter()
    report(what, 0, 1)
    yield
    seconds[what] = time.perf_counter() - begin
    report(what, 1, 1)
