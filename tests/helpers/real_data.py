"""Real data sets for tests: they are not part of the project, so tests that need one skip where it is absent."""

import os
from pathlib import Path

import pytest

BESIDE_THE_REPOSITORY = Path(__file__).parents[3] / "shared" / "data"


def real_data(name: str) -> Path:
    """The folder of that name in the folder that RANP_DATA names, or in the one beside the repository."""
    folder = Path(os.environ.get("RANP_DATA", BESIDE_THE_REPOSITORY)) / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name} where RANP_DATA points, nor beside the repository")
    return folder
