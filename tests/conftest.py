"""Fixtures of the whole suite; the modules beside this file can be imported from every test."""

import pytest
import torch

from helpers.report_pages import chromium, pruned

__all__ = ["chromium", "fixed_seed", "one_thread", "pruned"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run in parallel processes, and their networks are too small to share among threads."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """The same initial weights in every run, whatever ran before."""
    torch.manual_seed(0)
