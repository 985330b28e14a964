"""Output of the commands: results go to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from ranp.progress import Progress

if TYPE_CHECKING:
    from ranp.plan import Plan
    from ranp.report import Report

VERSION = 1
"""Version of the JSON that commands print; within a version fields are added, never changed or removed."""

# Fields that got a new name after 0.1; one release prints both.
_OLD_NAMES = {
    "unprunable": "frozen",
    "resource_weight": "lam",
    "metrics": "figures",
    "primary_metric": "headline",
}


def print_json(command: str, results: Mapping[str, Any], *, version: int = VERSION) -> None:
    """Print the results of a command as one JSON object, which starts with its format and version."""
    kind = {"format": f"ranp-{command}", "version": version}
    print(json.dumps(kind | _with_old_names(results) | kind, indent=1, allow_nan=False))


def _with_old_names(value: Any) -> Any:
    """The value, with the old names next to the new ones in all objects that it contains."""
    if isinstance(value, Mapping):
        old = {_OLD_NAMES[name]: each for name, each in value.items() if name in _OLD_NAMES}
        return {name: _with_old_names(each) for name, each in {**value, **old}.items()}
    return [_with_old_names(each) for each in value] if isinstance(value, (list, tuple)) else value


def warn(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr)


def stdout() -> Console:
    """A console for tables; if stdout is no terminal, it has no colors and is wide enough for any table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 1000)
    return console


@contextmanager
def working(*, bars: bool = True) -> Iterator[Progress]:
    """While a command works: send everything that is printed to stderr, and show progress bars there.

    Args:
        bars: Whether to show progress bars; none are shown if stderr is no terminal.

    Yields:
        A progress callback, which shows one bar for each kind of work.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    disable = not (bars and console.is_terminal)
    with redirect_stdout(sys.stderr), Bars(*columns, console=console, transient=True, disable=disable) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total or None)
            shown.update(tasks[what], completed=done, total=total or None)

        yield progress


def pruning_results(model: str, inputs: Any, plan: "Plan", report: "Report") -> dict[str, Any]:
    """The results of `ranp check`, `ranp prune` and `ranp apply` as plain data.

    Args:
        model: Name of the network.
        inputs: Example inputs; costs are counted for their shapes.
        plan: The plan.
        report: The report of applying it.
    """
    from ranp.module_utils import tensors_in

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


def show_pruning(console: Console, plan: "Plan", report: "Report", error: str = "") -> None:
    """Print the results of pruning: tables, unprunable channels, warnings, and the verification.

    Args:
        console: Console to print to.
        plan: The plan.
        report: The report of applying it.
        error: Why verification failed; empty if it did not.
    """
    console.print(*report.tables(), sep="\n")
    for entry in report.unprunable:
        where = f"{entry.operator} in {entry.path}" if entry.path else entry.operator
        say(
            console,
            f"unprunable: {entry.channels} channels, {entry.macs_share:.1%} of the MACs: {where} {entry.reason}",
        )
    for warning in report.warnings:
        say(console, f"warning: {warning}")
    budget = ", ".join(f"{name}={value:g}" for name, value in plan.budget.given())
    verification = f"failed: {error}" if error else report.verification
    say(console, f"Pruned to {budget} in {sum(report.seconds.values()):.2f} s. Verification: {verification}.")


def show_folder(console: Console, out: Path) -> None:
    """Print where the pruned network is, and how to use it."""
    say(console, f"Plan and weights are in {out}. Load them with ranp.load({str(out)!r}, model).")
    say(console, f"To see the report, run ranp report {out}.")


def say(console: Console, text: str) -> None:
    """Print a line of plain text; only the terminal wraps it."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
