"""The documentation as data: its pages, their code blocks, headings and links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    sorted(
        path.relative_to(ROOT).as_posix()
        for pattern in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md")
        for path in ROOT.glob(pattern)
    )
)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: The page's path from the root of the repository.
        line: Number of its first line of code.
        language: As the fence says.
        text: The code.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, language: str) -> list[Block]:
    """A page's blocks in one language, from the top."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start(2)) + 1, found[1], found[2])
        for found in _FENCED.finditer(text)
        if found[1] == language
    ]


def links(page: str) -> list[str]:
    """Where a page's links and pictures point, as written."""
    return _LINK.findall(_prose(page))


def anchors(page: str) -> set[str]:
    """Names of a page's headings, as links give them after a `#`."""
    titles = _HEADING.findall(_prose(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _prose(page: str) -> str:
    return re.sub(_FENCED, "", (ROOT / page).read_text(encoding="utf-8"))
