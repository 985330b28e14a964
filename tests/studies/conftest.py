"""A tiny study's data, and the study itself, run once."""

from pathlib import Path

import pytest

from ranp.studies._figures import Figures, read_figures
from ranp.studies._request import Request
from ranp.studies._run import run_study
from studies_parts import make_request
from tiny_runs import quiet
from tiny_runs import recipe as tiny


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "data"
    tiny().data_set().generate(folder, count=6, seed=0)
    return folder


@pytest.fixture(scope="session")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Figures]:
    """A study of two seeds that has been run."""
    request = make_request(tmp_path_factory.mktemp("studies") / "out", data)
    figures = read_figures("tiny", [])
    run_study(request, figures, tell=quiet)
    return request, figures
