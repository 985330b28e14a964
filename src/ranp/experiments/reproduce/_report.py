"""What `ranp reproduce resources` shows."""

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from ranp.experiments.reproduce._published import PublishedResources
from ranp.experiments.reproduce._resources import Row

NOTE = """\
Parameters, multiply-adds and memory as the published tables count them: batch 1, full input size; in \
brackets the reductions in percent. Neurons were scored on synthetic inputs, for brats in crops of 96 \
voxels a side, as in the source. In mobilenetv2, channels that residual sums and depthwise layers tie are \
coupled, which the published rows did not do. A method that leaves a layer without neurons at its published sparsity \
is not feasible: the last column names the highest sparsity that is, and the figures are those with a \
guard, by which every such layer keeps its best neuron."""


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table per network, with the published figures under ours."""
    found = []
    for name, group in groupby(rows, key=lambda row: row.network):
        table = Table("Method", "", "Params MB", "GFLOPs", "Memory MB", "Feasible", title=name)
        full, *_ = members = list(group)
        for row in members:
            table.add_row(row.method, "ours", *_figures(row, full), _feasible(row))
            if row.published and full.published:
                figures = _figures(row.published, full.published)
                table.add_row("", "published", *figures, style="dim", end_section=True)
        found.append(table)
    return found


def _figures(row: Row | PublishedResources, full: Row | PublishedResources) -> list[str]:
    """Three figures, each with its reduction in percent."""
    cells = []
    for name in ("params_mb", "gflops", "memory_mb"):
        value, whole = getattr(row, name), getattr(full, name)
        reduction = f" ({100 * (1 - value / whole):.1f}↓)" if row is not full else ""
        cells.append(f"{value:.2f}{reduction}")
    return cells


def _feasible(row: Row) -> str:
    if row.max_sparsity is None:
        return "yes"
    return f"no, up to {100 * row.max_sparsity:.2f}%"
