"""One type of table, shown in terminals, in Markdown and in notebooks; and the tables that several modules show."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ranp.costs import RESOURCES, Cost

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    r"""A table of texts. The first `text_columns` columns are aligned to the left, the others to the right.

    A terminal shows it by `console.print(table)`, a notebook as it is. Markdown leaves out the title, since a page has
    headings.

    Example:
        >>> print(Table("Widths", ("layer", "kept"), [("stem|a", "3")]).markdown())
        | layer | kept |
        | --- | ---: |
        | stem\|a | 3 |
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1

    def rich(self) -> "RichTable":
        """The table for a terminal; all texts are shown literally."""
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable(title=Text(self.title, "table.title") if self.title else None)
        for place, name in enumerate(self.header):
            shown.add_column(Text(name), justify="left" if place < self.text_columns else "right")
        for row in self.rows:
            shown.add_row(*(Text(text) for text in row))
        return shown

    def markdown(self) -> str:
        """The table for a Markdown page, without the title."""
        rule = ["---" if place < self.text_columns else "---:" for place in range(len(self.header))]
        lines = [
            [text.replace("|", "\\|").replace("\n", " ") for text in row] for row in (self.header, rule, *self.rows)
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def html(self, id: str = "") -> str:
        """The table for a notebook or a page, in their own colors; the first column names the rows."""
        name = f' id="{escape(id)}"' if id else ""
        title = f'<caption style="text-align:left">{escape(self.title)}</caption>' if self.title else ""
        head, *body = (self._html_row(row, is_head=place == 0) for place, row in enumerate((self.header, *self.rows)))
        return f"<table{name}>{title}<thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"

    def _html_row(self, texts: Sequence[str], *, is_head: bool) -> str:
        cells = []
        for place, text in enumerate(texts):
            tag, scope = ("td", "") if place and not is_head else ("th", f' scope="{"col" if is_head else "row"}"')
            style = ' style="text-align:left"' if place < self.text_columns else ""
            cells.append(f"<{tag}{scope}{style}>{escape(text)}</{tag}>")
        return f"<tr>{''.join(cells)}</tr>"

    __rich__ = rich
    _repr_html_ = html


def cost_table(before: Cost, after: Cost) -> Table:
    """What a network costs before and after pruning, one row for each resource."""
    rows = []
    for resource in RESOURCES:
        full, kept = resource.of(before), resource.of(after)
        if full is not None and kept is not None:
            share = f"{kept / full:.2%}" if full else "-"
            rows.append((resource.label, resource.text(full), resource.text(kept), share))
    return Table("Cost before and after pruning", ("", "full", "pruned", "kept"), rows)


def width_table(rows: Sequence[Sequence[str]], *more: str) -> Table:
    """The neurons of every layer: rows of (layer, neurons, kept) and the cells of any further columns."""
    return Table("Neurons by layer", ("layer", "neurons", "kept", *more), rows)


def metric_text(value: float | None) -> str:
    """The value of a metric; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def html_text(*lines: str) -> str:
    """Paragraphs for a notebook, escaped."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)
