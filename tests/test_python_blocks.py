"""The examples in the documentation run, those of a page one after the other, as a reader would type them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.documents import PAGES, Block, blocks

ALL = [block for page in PAGES for block in blocks(page, "python")]
# Their own packages warn of each other; what warns elsewhere is ours.
NOISY = {"docs/lightning.md", "docs/export.md"}


class Reader:
    """One reader of one page: what they have run so far, and in which folder."""

    def __init__(self, page: str, folder: Path) -> None:
        self.left, self.folder = blocks(page, "python"), folder
        self.names: dict[str, Any] = {}

    def run_up_to(self, block: Block) -> None:
        while self.left and self.left[0].line <= block.line:
            now = self.left.pop(0)
            # Empty lines in front, so that errors name lines of the page.
            code = compile("\n" * (now.line - 1) + now.text, now.page, "exec")
            exec(code, self.names)


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reader]:
    begun: dict[str, Reader] = {}

    def of(page: str) -> Reader:
        if page not in begun:
            torch.manual_seed(0)
            begun[page] = Reader(page, tmp_path_factory.mktemp("page"))
        return begun[page]

    return of


@pytest.mark.parametrize("block", ALL, ids=str)
def test_the_block_runs(block: Block, readers: Callable[[str], Reader], monkeypatch: pytest.MonkeyPatch) -> None:
    reader = readers(block.page)
    monkeypatch.chdir(reader.folder)
    with warnings.catch_warnings():
        if block.page in NOISY:
            warnings.simplefilter("ignore")
        try:
            reader.run_up_to(block)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "ranp":
                raise
            pytest.skip(f"needs the package {error.name}")


def test_there_are_examples() -> None:
    assert {block.page for block in ALL} >= {"README.md", "docs/monai.md"}
