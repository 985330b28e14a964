"""The plan that the report writes in the browser equals, as JSON, the one that allocation makes for the budget."""

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

import ranp
from helpers.networks import CASES
from helpers.oracles import random_scores
from ranp.explorer import survey


@pytest.fixture(scope="module")
def plan_at(chromium: Any) -> Any:
    page = chromium.new_page()
    page.add_script_tag(content=files("ranp.explorer").joinpath("assets", "plan.js").read_text(encoding="utf-8"))
    yield lambda found, step: page.evaluate("([found, step]) => planAt(found, step)", [found, step])
    page.close()


@pytest.mark.parametrize("name", CASES)
def test_on_hand_made_networks(name: str, plan_at: Any) -> None:
    case = CASES[name]
    graph = ranp.trace(case.build().eval(), case.inputs())
    scores = random_scores(graph, seed=1)
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=1.0))
    found = json.loads(json.dumps(survey(graph, plan, scores)))
    steps = found["steps"]
    for number in np.unique(np.linspace(0, len(steps) - 1, 5).astype(int)).tolist():
        given = {key: value for key, value in steps[number]["budget"].items() if value is not None}
        expected = ranp.allocate(graph, scores, ranp.Budget(**given)).to_json()
        assert plan_at(found, number) == json.loads(expected)
