"""Every argument of every public function: whatever is given ends in a result or in an error of ranp."""

import inspect
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ranp
from ranp.allocation import Balanced
from ranp.arguments import Must, Seed, checked, describe, require
from ranp.check import check
from ranp.costs import Resource
from ranp.criteria import Criterion
from ranp.errors import InputError, RanpError
from ranp.explorer import read_survey, survey, write_report, write_survey
from ranp.integrations import attach_plan, attached_plan, resize_to_state_dict
from ranp.memory import MemoryPredictor, largest_batch, largest_size, predict_memory
from ranp.plan import Plan
from ranp.profile import profile
from ranp.storage import load_plan
from ranp.surgery import initialize
from ranp.tracing import operators, output_shapes

X, Y = torch.randn(2, 3, 7, 7), torch.zeros(2, 2, 3, 3)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))


class Wrong:
    """An object of no use."""


WRONG = [
    None,
    True,
    0,
    -1,
    0.5,
    2**70,
    10**5000,
    math.nan,
    -math.inf,
    1j,
    "a",
    "\ud800",
    "a\0b",
    "a" * 300,
    "a" * 5000,
    b"a",
    [],
    [None],
    (),
    {},
    {1: 2},
    {"a::b": None},
    Wrong(),
    Wrong,
    nn.Conv2d,
    lambda: None,
    torch.zeros(2),
    torch.zeros(2, 3, 7, 7, dtype=torch.complex64),
    np.zeros(3),
    nn.ReLU(),
    nn.LazyConv2d(2, 1),
    network().to("meta"),
    torch.device("cpu"),
    ...,
]


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable[..., Any], dict[str, Any]]:
    """Arguments of each public function that are right."""
    model, budget = network(), ranp.Budget(macs=0.5)
    graph = ranp.trace(model, X)
    data: dict[str, Any] = {"batches": [(X, Y)], "loss_fn": F.mse_loss}
    scores = ranp.score(model, graph, **data)
    plan = ranp.allocate(graph, scores, budget)
    folder = tmp_path_factory.mktemp("arguments")
    saved = ranp.save(ranp.apply(model, plan), plan, folder / "saved")
    found = survey(graph, plan, scores)
    path = write_survey(saved, found)
    return {
        ranp.trace: {"model": model, "example_inputs": X},
        operators: {"model": model, "example_inputs": X},
        output_shapes: {"model": model, "example_inputs": X},
        profile: {"model": model, "example_inputs": X},
        ranp.score: {"model": model, "graph": graph, **data},
        ranp.allocate: {"graph": graph, "scores": scores, "budget": budget},
        ranp.apply: {"model": model, "plan": plan},
        initialize: {"model": model, "weights": "glorot", "seed": 0},
        ranp.verify: {"model": model, "plan": plan, "example_inputs": X},
        ranp.prune: {"model": model, "example_inputs": X, **data, "budget": budget},
        check: {"model": model, "example_inputs": X, "budget": budget},
        ranp.save: {"model": ranp.apply(model, plan), "plan": plan, "folder": folder / "new"},
        ranp.load: {"folder": saved, "model": model},
        load_plan: {"folder": saved},
        graph.cost: {"widths": [3]},
        ranp.Budget: {"macs": 0.5},
        Plan.from_json: {"text": plan.to_json()},
        survey: {"graph": graph, "plan": plan},
        write_survey: {"folder": saved, "found": found},
        read_survey: {"path": path},
        attach_plan: {"model": model},
        attached_plan: {"model": model},
        resize_to_state_dict: {"model": attach_plan(network()), "state_dict": {}},
        write_report: {"folder": saved},
        predict_memory: {"model": model, "example_inputs": X, "graph": graph, "widths": [3]},
        largest_batch: {"predictor": MemoryPredictor(model, X, graph=graph), "limit_bytes": 10**6},
        largest_size: {"predictor": MemoryPredictor(model, X, graph=graph), "limit_bytes": 10**6},
        ranp.TrainingSetup: {},
        Balanced: {},
        Criterion: {"name": "mine", "summary": "", "stages": lambda graph, importance, weight: {}},
        Resource: {"name": "energy", "cost": lambda graph, widths: 0.0},
    }


NAMES = (
    "trace operators output_shapes profile score allocate apply initialize verify prune check save load load_plan cost "
    "Budget from_json survey write_survey read_survey attach_plan attached_plan resize_to_state_dict "
    "write_report predict_memory largest_batch largest_size TrainingSetup Balanced Criterion Resource"
)


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", NAMES.split())
def test_no_wrong_argument_ends_in_another_error(
    name: str, valid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (function,) = (function for function in valid if function.__name__ == name)
    results, refusals = 0, []
    for argument in inspect.signature(function).parameters:
        for value in WRONG:
            if argument == "progress" and callable(value):
                continue  # What a function of the user's raises is not ranp's to change.
            shutil.rmtree(valid[ranp.save]["folder"], ignore_errors=True)
            try:
                function(**{**valid[function], argument: value})
            except RanpError as error:
                refusals.append(str(error))
            else:
                results += 1
    assert len(refusals) > results
    assert max(map(len, refusals)) < 1000


# -- what an annotation says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, int, "place: got True; expected an integer"),
        (2**70, Seed, "place: got an integer of 71 bits; expected an integer from 0 to 2**64 - 1"),
        (math.nan, float, "place: got nan; expected a finite number"),
        (10**400, float, "place: got an integer of 1329 bits; expected a finite number"),
        ("b", int | None, "place: got 'b'; expected an integer or None"),
        (None, str | os.PathLike[str], "place: got None; expected a string or a path"),
        ("ab", Literal["abc", "xyz"], "place: 'ab' is unknown; did you mean 'abc'? known: abc, xyz"),
        (3, Literal["abc", "xyz"], "place: got 3; expected one of 'abc', 'xyz'"),
        (3, Callable[[int], int], "place: got 3; expected a function"),
        ("ab", Iterable[str], "place: got 'ab'; expected an iterable"),
        ([1, "a"], Sequence[int], "place: got list of [1, 'a']; expected a list or tuple"),
        ({1: "a"}, Mapping[str, str], "place: got dict of {1: 'a'}; expected a dict"),
        (
            0.5,
            ranp.Budget,
            "place: got 0.5; expected a Budget; for example ranp.Budget(macs=0.25)",
        ),
        (nn.Conv2d, nn.Module, "place: got the class Conv2d; expected a Module; give the network itself, before"),
        (torch.zeros(2, 3), nn.Module, "place: got a tensor of shape (2, 3); expected a Module"),
        (3, Annotated[int, Must(lambda value: value < 3, "a small integer", "use 2")], "place: got 3; expected a sm"),
    ],
)
def test_a_value_that_does_not_fit(value: Any, kind: Any, message: str) -> None:
    with pytest.raises(InputError) as refused:
        require("place", value, kind)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, float),
        (np.float64(0.5), float),
        (None, int | None),
        (iter([1]), Iterable[str]),
        ((1, 2), Sequence[int]),
        ({"a": 1}, Mapping[str, float]),
        (len, Callable[[Any], int]),
        ("xyz", Literal["abc", "xyz"]),
        (Path(), str | os.PathLike[str]),
        (Wrong(), Any),
    ],
)
def test_a_value_that_fits(value: Any, kind: Any) -> None:
    require("place", value, kind)


def test_a_checked_function_is_what_it_was() -> None:
    @checked
    def function(number: int, *, text: str = "") -> tuple[int, str]:
        """Documented."""
        return number, text

    assert function(1, text="a") == (1, "a")
    assert (function.__doc__, list(inspect.signature(function).parameters)) == ("Documented.", ["number", "text"])
    with pytest.raises(InputError, match=r"^text: got 1; expected a string"):
        function(1, text=1)
    with pytest.raises(TypeError, match=r"function\(\) missing 1 required positional argument: 'number'"):
        function()


def test_long_values_are_described_in_short() -> None:
    assert describe("a" * 1000) == "'" + "a" * 59
    assert len(describe([[0] * 99] * 99)) < 100
