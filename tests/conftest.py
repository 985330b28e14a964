"""Fixtures of the whole suite, and which tests are slow; `helpers` can be imported from every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.report_pages import chromium, pruned, timed

__all__ = ["chromium", "fixed_seed", "one_thread", "own_cache", "pruned", "timed"]

# Written by `make slow-tests`: measured, so that nobody has to keep marks on tests up to date.
SLOW = frozenset((Path(__file__).parent / "slow_tests.txt").read_text(encoding="utf-8").splitlines())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out."""
    for item in items:
        zoo = item.nodeid.startswith("tests/zoo/")
        if zoo or item.nodeid in SLOW or "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run in parallel processes, and their networks are too small to share among threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Measured step times are not kept in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            patch.setenv(name, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """The same initial weights in every run, whatever ran before."""
    torch.manual_seed(0)
