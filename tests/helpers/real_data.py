"""Real data sets, which are not part of the repository: tests that need a missing one are skipped."""

import os
from pathlib import Path

import pytest

DEFAULT = Path(__file__).parents[3] / "shared" / "data"


def real_data(name: str) -> Path:
    """The folder of a real data set, in the folder RANP_DATA or in `../shared/data` next to the repository."""
    folder = Path(os.environ.get("RANP_DATA", DEFAULT)) / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name} in RANP_DATA or in ../shared/data")
    return folder
