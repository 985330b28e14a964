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
    headings. The footer is a last row that is set apart, such as totals.

    Example:
        >>> print(Table("Widths", ("layer", "kept"), [("stem|a", "3")]).markdown())
        | layer | kept |
        | --- | ---: |
        | stem\|a | 3 |
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    footer: Sequence[str] = ()
    text_columns: int = 1

    def rich(self) -> "RichTable":
        """The table for a terminal; all texts are shown literally."""
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable(title=Text(self.title, "table.title") if self.title else None, show_footer=bool(self.footer))
        for place, name in enumerate(self.header):
            footer = Text(self.footer[place]) if self.footer else ""
            shown.add_column(Text(name), footer=footer, justify="left" if place < self.text_columns else "right")
        for row in self.rows:
            shown.add_row(*(Text(text) for text in row))
        return shown

    def markdown(self) -> str:
        """The table for a Markdown page, without the title."""
        rule = ["---" if place < self.text_columns else "---:" for place in range(len(self.header))]
        rows = [self.header, rule, *self.rows, *([self.footer] if self.footer else [])]
        lines = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def html(self) -> str:
        """The table for a notebook, in the notebook's own colors."""
        caption = f'<caption style="text-align:left;font-weight:bold">{escape(self.title)}</caption>'
        body = "".join(self._html_row("td", row) for row in self.rows)
        foot = f"<tfoot>{self._html_row('th', self.footer)}</tfoot>" if self.footer else ""
        head = f"<thead>{self._html_row('th', self.header)}</thead>"
        return f"<table>{caption if self.title else ''}{head}<tbody>{body}</tbody>{foot}</table>"

    def _html_row(self, tag: str, texts: Sequence[str]) -> str:
        styles = [' style="text-align:left"' if place < self.text_columns else "" for place in range(len(texts))]
        cells = [f"<{tag}{style}>{escape(text)}</{tag}>" for style, text in zip(styles, texts, strict=True)]
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
    return Table("Cost of one forward pass", ("", "full", "pruned", "kept"), rows)


def width_table(rows: Sequence[Sequence[str]], *more: str) -> Table:
    """The neurons of every layer: rows of (layer, neurons, kept) and the cells of any further columns."""
    return Table("Neurons by layer", ("layer", "neurons", "kept", *more), rows)


def html_text(*lines: str) -> str:
    """Paragraphs for a notebook, escaped."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)
