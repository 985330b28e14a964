"""A generated data set, and one run on it, that many tests look at."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_runs import recipe, run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "data"
    recipe().data_set().generate(folder, count=6, seed=0)
    return folder


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run and its result."""
    torch.manual_seed(1)
    out = tmp_path_factory.mktemp("runs") / "finished"
    return out, run(recipe(), data, out)
