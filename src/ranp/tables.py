"""Tables: the figures that people see in several places, and HTML for notebooks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ranp.graph import Cost

if TYPE_CHECKING:
    from rich.table import Table as RichTable

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
    r"""A table of texts. The first column is aligned to the left, the others to the right.

    A terminal shows it by `console.print(table)`, a notebook as it is.

    Attributes:
        title: Title; Markdown leaves it out, since a page has headings.
        header: Names of the columns.
        rows: Texts of each row, as many as there are columns.
        footer: A last row that is set apart, such as totals.
        text_columns: How many columns are aligned to the left.

    Example:
        >>> table = Table("Widths", ("layer", "kept"), [("stem|a", "3")])
        >>> print(table.markdown())
        | layer | kept |
        | --- | ---: |
        | stem\|a | 3 |
        >>> table.html()[-81:]
        '<tbody><tr><td style="text-align:left">stem|a</td><td>3</td></tr></tbody></table>'
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
        rows = [self.header, *self.rows, *([self.footer] if self.footer else [])]
        lines = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))

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

    def __rich__(self) -> "RichTable":
        return self.rich()

    def _repr_html_(self) -> str:
        return self.html()
