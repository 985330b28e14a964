"""Small pieces of HTML; every text is escaped here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: What links point at.
        title: Its heading.
        body: HTML.
    """

    id: str
    title: str
    body: str

    def html(self) -> str:
        """The section as HTML."""
        heading = f"{self.id}-title"
        return (
            f'<section id="{self.id}" aria-labelledby="{heading}">\n'
            f'<h2 id="{heading}">{escape(self.title)}</h2>\n{self.body}\n</section>'
        )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, id: str = "") -> str:
    """A table whose first column holds the rows' names; it scrolls by itself where it is too wide.

    Example:
        >>> "<td>1 &lt; 2</td>" in table("t", ["a", "b"], [["x", "1 < 2"]])
        True
    """
    cells = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(text)}</td>" for text in rest)}</tr>\n'
        for first, *rest in rows
    )
    name = f' id="{id}"' if id else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table{name}>'
        f"<caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def figure(id: str, caption: str, label: str, below: str = "") -> str:
    """A place where a script draws a picture, with what it shows in words, and the same as a table."""
    return (
        f'<figure><div id="{id}" class="picture" role="img" aria-label="{escape(label)}"></div>'
        f"<figcaption>{escape(caption)}</figcaption>{below}</figure>"
    )


def folded(summary: str, body: str) -> str:
    """Something that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values."""
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{inside}</dl>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
