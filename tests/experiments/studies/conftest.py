"""A tiny study's data, and the study itself, run once."""

from pathlib import Path

import pytest

from helpers.tiny_runs import quiet
from helpers.tiny_runs import recipe as tiny
from helpers.tiny_studies import make_request
from ranp.experiments.studies.results import Results, read_results
from ranp.experiments.studies.running import StudyRequest, run_study


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "data"
    tiny().data_set().generate(folder, count=6, seed=0)
    return folder


@pytest.fixture(scope="session")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRequest, Results]:
    """A study of two seeds that has been run."""
    request = make_request(tmp_path_factory.mktemp("studies") / "out", data)
    results = read_results("tiny", [])
    run_study(request, results, progress=quiet)
    return request, results
