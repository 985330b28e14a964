"""Names that the options accept: they come from the library's lists."""

from typing import get_args

from typer.testing import CliRunner

from ranp.cli import _options, app
from ranp.costs import RESOURCES
from ranp.criteria import CRITERIA, Importance
from ranp.experiments.losses import LOSSES
from ranp.models import BUILT_IN
from ranp.surgery import Weights


def test_names_come_from_the_lists() -> None:
    assert set(BUILT_IN) <= set(_options.complete_networks(""))
    assert _options.complete_criteria("") == sorted(CRITERIA)
    assert _options.complete_losses("") == list(LOSSES)
    assert _options.complete_limits("") == [f"{resource.limit}=" for resource in RESOURCES]
    shown = CliRunner().invoke(app, ["prune", "--help"], env={"COLUMNS": "300"}).output
    assert ", ".join(sorted(CRITERIA)) in shown
    assert ", ".join(sorted(BUILT_IN)) in shown


def test_choices_are_those_of_the_library() -> None:
    """They are repeated so that help does not import torch."""
    assert get_args(_options.ImportanceName) == get_args(Importance)
    assert get_args(_options.WeightsName) == get_args(Weights)
