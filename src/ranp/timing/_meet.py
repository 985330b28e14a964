"""A budget on the time of a training step is met by measurement: allocate, measure, correct."""

import statistics
from collections.abc import Callable
from dataclasses import replace

import torch.distributed

from ranp.budget import Budget
from ranp.costs import RESOURCES
from ranp.costs.time import MeasuredStep
from ranp.environment import ran_out_of_memory
from ranp.errors import BudgetError, InputError
from ranp.graph import Ints
from ranp.module_utils import preserve_rng
from ranp.plan import Plan
from ranp.progress import Progress, no_progress
from ranp.timing._stopwatch import Stopwatch, spread_of
from ranp.timing._timer import StepTimer, widths_of

TRIES = 3
GOOD = (0.92, 1.02)
"""Measured relative to requested time that needs no correction."""
LIMIT_SECONDS = 20.0
"""For measuring one plan, on a busy device."""
_STEP_TIME = next(resource for resource in RESOURCES if resource.limit == "step_time")


def meet_step_time(
    timer: StepTimer, budget: Budget, allocate: Callable[[Budget], Plan], progress: Progress | None = None
) -> tuple[Plan, MeasuredStep]:
    """The plan whose measured step time is closest to what a budget permits, of at most three.

    The steps of the full and the pruned network take turns. If the pruned network's is longer or clearly shorter than
    requested, the limit on the predicted time is corrected by the ratio, and the next plan is measured.

    Args:
        timer: Measures steps of the model.
        budget: Limits `step_time`, and possibly other resources.
        allocate: From a budget to a plan by predicted step times; `plan.cost.step_seconds` is the prediction.
        progress: Called with how many plans were measured, and how many may be.

    Raises:
        BudgetError: No plan has a predicted step time within the budget.
    """
    report, limit = progress or no_progress, budget
    found: list[tuple[Plan, MeasuredStep]] = []
    for number in range(TRIES):
        report("measuring plans", number, TRIES)
        try:
            plan = allocate(limit)
        except BudgetError:
            if found:
                break  # Even the narrowest network takes longer than requested.
            raise
        if any(plan.keep == other.keep for other, _ in found):
            break
        step = _measured(timer, budget, plan)
        found.append((replace(plan, budget=budget), step))
        if step.measured is None or GOOD[0] <= step.measured / step.requested <= GOOD[1]:
            break
        corrected = step.requested * step.predicted / step.measured
        limit = replace(budget, step_time=f"{corrected:.9g} s")
    report("measuring plans", TRIES, TRIES)
    return min(found, key=lambda each: each[1].distance)


def require_one_process() -> None:
    """Refuse to measure in one of several processes: each would decide on another plan.

    Raises:
        InputError: Torch's default process group has several processes.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        hint = "prune in one process, save the plan, and apply it in all of them"
        raise InputError("step times", "they differ between the processes of a group", hint=hint)


def _measured(timer: StepTimer, budget: Budget, plan: Plan) -> MeasuredStep:
    full_widths, predicted = timer.graph.widths, plan.cost.step_seconds
    assert predicted is not None
    assert plan.full_cost.step_seconds is not None
    assert budget.step_time is not None
    found = _in_turns(timer, {"full": full_widths, "pruned": widths_of(timer.graph, plan.keep)})
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    full = medians.get("full")
    return MeasuredStep(
        requested=_STEP_TIME.most(budget.step_time, full or plan.full_cost.step_seconds),
        predicted=predicted,
        measured=medians.get("pruned"),
        full=full,
        spread=max(map(spread_of, found.values()), default=0.0),
    )


def _in_turns(timer: StepTimer, widths: dict[str, Ints]) -> dict[str, list[float]]:
    """Seconds of steps; without the full network where that does not fit into memory, and none if nothing does."""
    for names in (["full", "pruned"], ["pruned"]):
        try:
            with timer.setup.limit_threads(), preserve_rng(timer.model):
                steps = {name: timer.step(widths[name]) for name in names}
                return Stopwatch(timer.device).in_turns(steps, LIMIT_SECONDS)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
    return {}
