"""The citation file says what the package says."""

import re

from helpers.documents import ROOT
from ranp import __version__


def test_the_version_is_the_package_s() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, flags=re.MULTILINE).group(1) == __version__  # type: ignore[union-attr]


def test_its_paper_is_named_in_the_readme() -> None:
    title = re.search(r'title: "(.+)"', (ROOT / "CITATION.cff").read_text(encoding="utf-8")).group(1)  # type: ignore[union-attr]
    assert title in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
