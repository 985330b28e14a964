"""Tables: the figures that people see in several places, and HTML for notebooks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ranp.graph import Cost

if TYPE_CHECKING:
    import rich.table

COSTS, WIDTHS = "Cost of one forward pass", "Neurons by layer"


def cost_rows(before: Cost, after: Cost) -> list[tuple[str, str, str, str]]:
    """What a network costs before and after pruning: resource, full, pruned, kept share.

    Example:
        >>> cost_rows(Cost(2 * 10**9, 10**6, 2**20, 8), Cost(10**9, 10**5, 2**19, 4))[0]
        ('multiply-adds', '2.000 G', '1.000 G', '50.00%')
    """
    rows = []
    for label, name, unit, scale in (
        ("multiply-adds", "macs", "G", 1e9),
        ("parameters", "params", "M", 1e6),
        ("activations", "activation_bytes", "MiB", 2**20),
        ("neurons", "neurons", "", 1),
    ):
        full, kept = getattr(before, name), getattr(after, name)
        digits = 0 if scale == 1 else 3
        before_text, after_text = (f"{value / scale:,.{digits}f} {unit}".strip() for value in (full, kept))
        rows.append((label, before_text, after_text, f"{kept / full:.2%}" if full else "-"))
    return rows


def cost_html(before: Cost, after: Cost) -> str:
    """The same as a table for a notebook."""
    return html_table(COSTS, ("", "full", "pruned", "kept"), cost_rows(before, after))


def html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for a notebook, in whatever colours the notebook has; all texts are escaped.

    Example:
        >>> html_table("Widths", ["layer", "kept"], [["a<b", "3"]])[-81:]
        '<tbody><tr><td style="text-align:left">a&lt;b</td><td>3</td></tr></tbody></table>'
    """
    head = "".join(_cell("th", text, left=place == 0) for place, text in enumerate(header))
    body = "".join(
        f"<tr>{''.join(_cell('td', text, left=place == 0) for place, text in enumerate(row))}</tr>" for row in rows
    )
    caption = f'<caption style="text-align:left;font-weight:bold">{escape(title)}</caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_text(*lines: str) -> str:
    """Paragraphs for a notebook, escaped.

    Example:
        >>> html_text("a & b")
        '<p>a &amp; b</p>'
    """
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _cell(tag: str, text: str, *, left: bool) -> str:
    style = ' style="text-align:left"' if left else ""
    return f"<{tag}{style}>{escape(text)}</{tag}>"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: Title.
        header: Names of the columns.
        rows: One text per column.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> "rich.table.Table":
        """For a terminal."""
        from rich.table import Table as RichTable

        table = RichTable(*self.header, title=self.title)
        table.columns[0].no_wrap = True
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """As Markdown, without the title."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.header, rule, *self.rows))
