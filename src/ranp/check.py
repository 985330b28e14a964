"""The first thing to run: can this network be pruned, what cannot, and is the result correct?"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import ranp
from ranp.arguments import Seed, checked
from ranp.deprecation import renamed_names
from ranp.errors import VerificationError
from ranp.module_utils import Inputs, ModelWithValues
from ranp.plan import Plan
from ranp.pruning import require_channels
from ranp.report import Report, make_report
from ranp.training_costs import with_training_costs


@dataclass(frozen=True)
class CheckResult:
    """What `check` returns.

    Attributes:
        verified: `exact`, `structural` or `failed`; see `ranp.verify`.
        error: Why it failed; empty if it did not.
        plan: Of the randomly pruned network.
        report: What cannot be pruned and why, costs and widths.
    """

    verified: Literal["exact", "structural", "failed"]
    error: str
    plan: Plan
    report: Report


@checked
def check(model: ModelWithValues, example_inputs: Inputs, budget: ranp.Budget, *, seed: Seed = 0) -> CheckResult:
    """Trace a network, prune it at random to a budget, and verify the result; no data and no loss are needed.

    Args:
        model: The network; it is not changed.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).
        budget: What the pruned network may cost.
        seed: Seed of the random scores.

    Raises:
        RanpError: A model that cannot be traced or has nothing to prune, or a budget that cannot be met.

    Example:
        >>> import torch
        >>> from ranp.models import UNet3D
        >>> result = check(UNet3D(1, 2, width=8), torch.zeros(1, 1, 16, 16, 16), ranp.Budget(macs=0.25))
        >>> result.verified, result.plan.cost.macs <= 0.25 * result.plan.full_cost.macs
        ('exact', True)
        >>> [entry.operator for entry in result.report.unprunable]
        ['output']
    """
    begin = time.perf_counter()
    graph = ranp.trace(model, example_inputs)
    require_channels(graph)
    graph = with_training_costs(model, example_inputs, graph, dict(budget.given()))
    scores = ranp.score(model, graph, [], criterion="random", seed=seed)
    plan = ranp.allocate(graph, scores, budget)
    verified: Literal["exact", "structural", "failed"]
    try:
        verification = ranp.verify(model, plan, example_inputs)
        verified, note, error = verification.status, verification.warning, ""
    except VerificationError as failure:
        verified, note, error = "failed", "", str(failure)
    seconds = {"check": time.perf_counter() - begin}
    report = make_report(graph, plan, verification=verified, note=note, seconds=seconds)
    return CheckResult(verified, error, plan, report)


if not TYPE_CHECKING:
    __getattr__ = renamed_names(__name__, {"Check": "CheckResult"})
