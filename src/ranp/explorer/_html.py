"""Small pieces of the report: HTML, in which every text is escaped here, and numbers with their units."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from html import escape
from importlib.resources import files

from ranp.budget import Budget
from ranp.costs import RESOURCES, Cost, Resource
from ranp.tables import Table

TIMES = "\u00d7"


def asset(name: str) -> str:
    """The text of a file that is part of the report."""
    return files("ranp.explorer").joinpath("assets", name).read_text(encoding="utf-8")


# -- HTML --------------------------------------------------------------------------------------------------------


def section(id: str, title: str, body: str) -> str:
    """A section of the report: the anchor that links point to, the heading, and HTML."""
    return (
        f'<section id="{id}" aria-labelledby="{id}-title">\n'
        f'<h2 id="{id}-title">{escape(title)}</h2>\n{body}\n</section>'
    )


def table(shown: Table, *, id: str = "") -> str:
    """A table that scrolls sideways if it is too wide for the page."""
    label = escape(shown.title)
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">{shown.html(id)}</div>'


def tile(label: str, big: str, small: str, *, bar: float | None = None, attributes: str = "") -> str:
    """A number in large type with its name, a bar (in percent) and a line of explanation; `big` is HTML."""
    drawn = (
        "" if bar is None else f'<span class="bar" aria-hidden="true"><span style="width:{bar:.2f}%"></span></span> '
    )
    return (
        f'<li class="tile"{attributes}><span class="name">{escape(label)}</span> <span class="big">{big}</span> '
        f'{drawn}<span class="small">{escape(small)}</span></li>'
    )


def figure(id: str, caption: str, label: str, below: str = "") -> str:
    """A place where a script draws a plot, with a description for screen readers."""
    return (
        f'<figure><div id="{id}" class="plot-area" role="img" aria-label="{escape(label)}"></div>'
        f"<figcaption>{escape(caption)}</figcaption>{below}</figure>"
    )


def folded(summary: str, body: str) -> str:
    """Content that is hidden until the reader opens it."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and values."""
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{inside}</dl>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


# -- numbers; `format.js` formats them in the same way -----------------------------------------------------------


def amount(resource: str, value: float) -> str:
    """A cost with a suitable unit."""
    if resource.endswith("seconds"):
        value, unit = (value, "s") if value >= 1 else (1e3 * value, "ms")
        return f"{_fixed(value, _digits(value))} {unit}"
    if resource.endswith("bytes"):
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    return _scaled(value, 1000, ("", "k", "M", "G", "T")).strip()


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    if value < base:
        return f"{value:.0f} {units[0]}"
    power = 0
    while value >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    return f"{_fixed(value, _digits(value))} {units[power]}"


def _digits(value: float) -> int:
    return 2 if value < 10 else 1 if value < 100 else 0


def _fixed(value: float, digits: int) -> str:
    """Rounds half up, as JavaScript does; Python's own formatting rounds half to even."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    percent = 100 * part / whole if whole else 100.0
    return f"{_fixed(percent, 0 if percent >= 10 else 1 if percent >= 1 else 2)}%"


def times(full: float, kept: float) -> str:
    """How many times smaller."""
    factor = full / kept if kept else float("inf")
    return f"{_fixed(factor, 0 if factor >= 20 else 1)}{TIMES}" if factor < 1e9 else "∞"


def budget_text(budget: Budget) -> str:
    """A budget in words."""
    texts = [
        f"{each.label} of at most {limit}"
        if isinstance(limit, str)
        else f"at {'least' if each.removes else 'most'} {_part_text(limit, each.label, each.removes)}"
        for each, limit in _limits(budget)
    ]
    return "; ".join([*texts, *(f"at most {_part_text(value, name)}" for name, value in budget.custom.items())])


def result_text(budget: Budget, cost: Cost, full: Cost) -> str:
    """What is kept or removed of the resources that a budget limits."""
    return "; ".join(
        _part_text(each.fraction(kept, whole), each.label, each.removes)
        for each, _ in _limits(budget)
        if (kept := each.of(cost)) is not None and (whole := each.of(full)) is not None
    )


def _limits(budget: Budget) -> list[tuple[Resource, float | str]]:
    limits = dict(budget.given())
    return [(each, limits[each.limit]) for each in RESOURCES if each.limit in limits]


def _part_text(value: float, label: str, removes: bool = False) -> str:
    return f"{share(value, 1)} of the {label}{' removed' if removes else ''}"
