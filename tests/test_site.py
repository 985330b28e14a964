"""The documentation can be built, and has every page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.documents import ROOT


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(
        r"^\s+- (?:\w+: )?([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"({path.name})" in index for path in (ROOT / "docs").glob("*.md") if path.name != "index.md")


def test_it_can_be_built(tmp_path: Path) -> None:
    """In strict mode: a broken link, or a name of the reference that is gone, is an error."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert 'id="ranp.prune"' in page
