"""The report of a pruning: costs, widths, what could not be pruned, warnings."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ranp.costs import Cost
from ranp.costs.time import MeasuredStep
from ranp.deprecation import RenamedAttribute
from ranp.graph import ChannelGraph, Unprunable
from ranp.plan import Plan
from ranp.tables import Table, cost_table, html_text, width_table

# A layer that keeps a smaller part of its channels is worth a warning.
NARROW = 1 / 20


@dataclass(frozen=True)
class LayerRow:
    """One line of the per-layer table."""

    layer: str
    full: int
    kept: int
    macs_share: float


@dataclass(frozen=True)
class Report:
    """What pruning did.

    Attributes:
        layers: Kept neurons of every layer, with its share of the full model's multiply-adds.
        before: Cost of the full model at the traced shape.
        after: Cost of the pruned model.
        unprunable: What could not be pruned, and why.
        warnings: What a user should know before training.
        verification: `exact` or `structural`.
        seconds: Duration of each step.
        step_time: The time of a training step, if the budget limits it.
    """

    layers: tuple[LayerRow, ...]
    before: Cost
    after: Cost
    unprunable: tuple[Unprunable, ...]
    warnings: tuple[str, ...]
    verification: str
    seconds: Mapping[str, float]
    step_time: MeasuredStep | None = None
    frozen = RenamedAttribute("unprunable")

    def tables(self) -> tuple[Table, ...]:
        """Costs before and after, the time of a training step if it was measured, and widths by layer."""
        rows = [(row.layer, str(row.full), str(row.kept), f"{row.macs_share:.1%}") for row in self.layers]
        times = (_step_time_table(self.step_time),) if self.step_time else ()
        return cost_table(self.before, self.after), *times, width_table(rows, "share of MACs")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.tables()
        for warning in self.warnings:
            yield Text(f"warning: {warning}")

    def __str__(self) -> str:
        console = Console(width=100, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        tables = "".join(table.html() for table in self.tables())
        return tables + html_text(*(f"warning: {warning}" for warning in self.warnings))


def make_report(
    graph: ChannelGraph,
    plan: Plan,
    *,
    verification: str,
    note: str,
    seconds: Mapping[str, float],
    step_time: MeasuredStep | None = None,
) -> Report:
    """Make the report of a plan that was verified and applied; the note says what was not compared."""
    total = max(sum(layer.macs for layer in graph.layers), 1)
    rows = [LayerRow(layer.name, layer.width, plan.widths[layer.name], layer.macs / total) for layer in graph.layers]
    costs, found = (plan.full_cost, plan.cost), _warnings(graph, plan, note, step_time)
    return Report(tuple(rows), *costs, graph.unprunable, tuple(found), verification, dict(seconds), step_time)


def _step_time_table(step: MeasuredStep) -> Table:
    """Requested, predicted and measured time."""
    header = ("", "requested", "predicted", "measured", "full network")
    times = (step.requested, step.predicted, step.measured, step.full)
    row = ("training step", *("-" if seconds is None else f"{seconds * 1e3:,.3f} ms" for seconds in times))
    return Table("Time of a training step", header, [row])


def _warnings(graph: ChannelGraph, plan: Plan, note: str, step_time: MeasuredStep | None) -> list[str]:
    found = []
    kept = {group.name: (len(plan.keep[group.name]), group.width) for group in graph.groups}
    if narrow := [f"{name} ({width} of {full})" for name, (width, full) in kept.items() if width < NARROW * full]:
        found.append(
            f"less than {NARROW:.0%} of the channels remain in {', '.join(narrow)}: such a layer can be a bottleneck; "
            "raise the budget or min_width"
        )
    untouched = sum(entry.macs_share for entry in graph.unprunable)
    if untouched > 0.5:
        worst = max(graph.unprunable, key=lambda entry: entry.macs_share)
        found.append(
            f"{untouched:.0%} of the multiply-adds belong to layers that cannot be pruned; most of them because "
            f"{worst.operator} in {worst.path or 'the model'} {worst.reason}"
        )
    if graph.untraced_training_mode:
        found.append(
            f"training mode could not be traced ({graph.untraced_training_mode}): what runs only in training mode may "
            "not fit; try a training step, or give example inputs of the size that you train on"
        )
    if note:
        found.append(note)
    for model in graph.costs.models.values():
        found += getattr(model, "warnings", [])
    return found + (step_time.warnings if step_time else [])
