"""Output of the commands: results go to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from ranp.files import is_rank_zero
from ranp.progress import Progress

if TYPE_CHECKING:
    from ranp.plan import Plan
    from ranp.report import Report

VERSION = 1
"""Version of the JSON that commands print; within a version fields are added, never changed or removed."""

# Fields that got a new name after 0.1; one release prints both.
_OLD_NAMES = {"unprunable": "frozen", "resource_weight": "lam", "metrics": "figures", "primary_metric": "headline"}


def print_results(
    command: str, results: Mapping[str, Any], *shown: RenderableType, as_json: bool, version: int = VERSION
) -> None:
    """Print the results of a command: what is shown, or one JSON object, which starts with its format and version.

    Of several processes only the first prints. Lines of text are printed literally, and only the terminal wraps them.
    """
    if not is_rank_zero():
        return
    if as_json:
        kind = {"format": f"ranp-{command}", "version": version}
        print(json.dumps(kind | _with_old_names(results) | kind, indent=1, allow_nan=False))
        return
    for each in shown:
        stdout().print(each, markup=False, soft_wrap=isinstance(each, str))


def _with_old_names(value: Any) -> Any:
    """The old names next to the new ones, also in lists; other objects may have names of the user, such as layers."""
    if isinstance(value, (list, tuple)):
        return [_with_old_names(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    old = {_OLD_NAMES[name]: each for name, each in value.items() if name in _OLD_NAMES}
    return {
        name: each if isinstance(each, Mapping) else _with_old_names(each) for name, each in {**value, **old}.items()
    }


def stdout() -> Console:
    """A console for tables; if stdout is no terminal, it has no colors and is wide enough for any table."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 1000)
    return console


@contextmanager
def working() -> Iterator[Progress]:
    """Send everything that is printed to stderr; if that is a terminal, the progress callback shows bars there.

    Of several processes only the first shows bars.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    disable = not (is_rank_zero() and console.is_terminal)
    with redirect_stdout(sys.stderr), Bars(*columns, console=console, transient=True, disable=disable) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total or None)
            shown.update(tasks[what], completed=done, total=total or None)

        yield progress


def print_pruning(
    command: str, model: str, inputs: Any, plan: "Plan", report: "Report", settings: Mapping[str, Any], *, as_json: bool
) -> None:
    """Print the results of `ranp check`, `ranp prune` or `ranp apply`.

    `settings` are further fields of the JSON; of these, the text shows `error` (why verification failed) and `out` (the
    new folder).
    """
    from ranp.module_utils import tensors_in

    results = {
        "model": model,
        "input": [list(tensor.shape) for tensor in tensors_in(inputs)],
        "budget": dict(plan.budget.given()),
        "criterion": plan.criterion,
        "seed": plan.seed,
        "verified": report.verification,
        "full_cost": report.before.known(),
        "cost": report.after.known(),
        "full_widths": {row.layer: row.full for row in report.layers},
        "widths": {row.layer: row.kept for row in report.layers},
        "unprunable": [asdict(entry) for entry in report.unprunable],
        "warnings": list(report.warnings),
        "seconds": dict(report.seconds),
        **settings,
    }
    lines = []
    for entry in report.unprunable:
        where = f"{entry.operator} in {entry.path}" if entry.path else entry.operator
        lines.append(
            f"unprunable: {entry.channels} channels, {entry.macs_share:.1%} of the MACs: {where} {entry.reason}"
        )
    lines += [f"warning: {warning}" for warning in report.warnings]
    verification = f"failed: {settings['error']}" if settings.get("error") else report.verification
    lines.append(f"Pruned to {plan.budget} in {sum(report.seconds.values()):.2f} s. Verification: {verification}.")
    if out := settings.get("out"):
        lines.append(f"Plan and weights are in {out}. Load them with ranp.load({out!r}, model).")
        lines.append(f"To see the report, run ranp report {out}.")
    print_results(command, results, *report.tables(), *lines, as_json=as_json)
