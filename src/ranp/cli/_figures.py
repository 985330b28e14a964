"""What `ranp check`, `ranp prune` and `ranp apply` tell of a pruned network."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ranp.module_utils import tensors_in
from ranp.plan import Plan
from ranp.report import Report
from ranp.scores import Scores


def pruning_figures(model: str, inputs: Any, plan: Plan, report: Report) -> dict[str, Any]:
    """Figures as plain data.

    Args:
        model: How the network was named.
        inputs: The inputs that costs are counted for.
        plan: What was pruned.
        report: What that did.
    """
    return {
        "model": model,
        "input": [list(tensor.shape) for tensor in tensors_in(inputs)],
        "budget": dict(plan.budget.given()),
        "criterion": plan.criterion,
        "seed": plan.seed,
        "verified": report.verification,
        "full_cost": asdict(report.before),
        "cost": asdict(report.after),
        "full_widths": {row.layer: row.full for row in report.layers},
        "widths": {row.layer: row.kept for row in report.layers},
        "unprunable": [asdict(entry) for entry in report.unprunable],
        "warnings": list(report.warnings),
        "seconds": dict(report.seconds),
    }


def scoring_figures(scores: Scores) -> dict[str, Any]:
    """How neurons were scored, as plain data."""
    return {
        "importance": scores.importance,
        "resource_weight": scores.resource_weight,
        "batches": scores.batches,
        "stability": [list(pair) for pair in scores.stability],
    }


def show_pruning(console: Console, plan: Plan, report: Report, error: str = "") -> None:
    """The same for people: tables, what stays whole, warnings, and a verdict.

    Args:
        console: Where to.
        plan: What was pruned.
        report: What that did.
        error: Why verification failed, if it did.
    """
    console.print(*report.tables(), sep="\n")
    for entry in report.unprunable:
        where = entry.path or "the model"
        told = f"since {entry.operator} in {where} {entry.reason}"
        say(console, f"whole: {entry.channels} channels, {entry.macs_share:.1%} of the MACs, {told}")
    for warning in report.warnings:
        say(console, f"warning: {warning}")
    asked = ", ".join(f"{name}={value:g}" for name, value in plan.budget.given())
    verdict = f"failed: {error}" if error else report.verification
    say(console, f"Pruned to {asked} in {sum(report.seconds.values()):.2f} s. Verification: {verdict}.")


def show_folder(console: Console, out: Path) -> None:
    """Where the pruned network is, and how it is read back."""
    say(console, f"Plan and weights are in {out}; in Python, ranp.load({str(out)!r}, model) reads them back.")
    say(console, f"ranp report {out} draws it.")


def say(console: Console, text: str) -> None:
    """A line as it is, to be broken by nobody but the terminal."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
