"""What pruning did, for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ranp.graph import ChannelGraph, Cost, Frozen
from ranp.plan import Plan


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
        frozen: What could not be pruned, and why.
        warnings: What a user should know.
        verification: `exact` or `structural`.
        seconds: Duration of each step.
    """

    layers: tuple[LayerRow, ...]
    before: Cost
    after: Cost
    frozen: tuple[Frozen, ...]
    warnings: tuple[str, ...]
    verification: str
    seconds: Mapping[str, float]

    def tables(self) -> tuple[Table, Table]:
        """Costs before and after, and widths by layer, as rich tables."""
        costs = Table("", "full", "pruned", "kept", title="Cost of one forward pass")
        for column in costs.columns[1:]:
            column.justify = "right"
        for label, name, unit, scale in (
            ("multiply-adds", "macs", "G", 1e9),
            ("parameters", "params", "M", 1e6),
            ("activations", "activation_bytes", "MiB", 2**20),
            ("neurons", "neurons", "", 1),
        ):
            full, kept = getattr(self.before, name), getattr(self.after, name)
            digits = 0 if scale == 1 else 3
            costs.add_row(
                label,
                f"{full / scale:,.{digits}f} {unit}",
                f"{kept / scale:,.{digits}f} {unit}",
                _share(kept, full),
            )
        widths = Table("layer", "neurons", "kept", "share of MACs", title="Neurons by layer")
        for column in widths.columns[1:]:
            column.justify = "right"
        for row in self.layers:
            widths.add_row(row.layer, str(row.full), str(row.kept), f"{row.macs_share:.1%}")
        return costs, widths

    def __str__(self) -> str:
        console = Console(width=100, color_system=None, force_terminal=False)
        with console.capture() as capture:
            for table in self.tables():
                console.print(table)
            for warning in self.warnings:
                console.print(f"warning: {warning}", markup=False, highlight=False)
        return capture.get()


def make_report(
    graph: ChannelGraph, plan: Plan, *, verification: str, note: str, seconds: Mapping[str, float]
) -> Report:
    """Put together what pruning did."""
    total = max(sum(layer.macs for layer in graph.layers), 1)
    rows = tuple(
        LayerRow(layer.name, layer.width, plan.widths[layer.name], layer.macs / total) for layer in graph.layers
    )
    return Report(
        layers=rows,
        before=plan.full_cost,
        after=plan.cost,
        frozen=graph.frozen,
        warnings=tuple(_warnings(graph, note)),
        verification=verification,
        seconds=dict(seconds),
    )


def _warnings(graph: ChannelGraph, note: str) -> list[str]:
    found = []
    untouched = sum(entry.macs_share for entry in graph.frozen)
    if untouched > 0.5:
        worst = max(graph.frozen, key=lambda entry: entry.macs_share)
        found.append(
            f"{untouched:.0%} of the multiply-adds belong to layers that cannot be pruned; most of them because "
            f"{worst.operator} in {worst.path or 'the model'} {worst.reason}"
        )
    if graph.missed:
        found.append(
            f"training mode could not be traced ({graph.missed}): what runs in training mode alone may not fit; try a "
            "training step, or give example inputs of the size that you train on"
        )
    if note:
        found.append(f"{note}: the pruned model was checked for shapes, finite values and gradients")
    return found


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"
