"""Surveys of the earlier version, and files that are missing, damaged, hostile or of another kind."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ranp
from helpers.oracles import random_scores
from ranp.errors import ArtifactError, RanpError
from ranp.explorer import read_survey, survey, write_survey


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    graph = ranp.trace(model, torch.zeros(1, 1, 8, 8))
    scores = random_scores(graph, 0)
    return survey(graph, ranp.allocate(graph, scores, ranp.Budget(macs=0.6)), scores)


GOLDEN = Path(__file__).parents[1] / "golden" / "0.1"
DAMAGE = {
    "another format": lambda data: data.update(format="ranp-plan"),
    "a newer version": lambda data: data.update(version=3),
    "no steps": lambda data: data.update(steps=[]),
    "a field too many": lambda data: data.update(extra=1),
    "a field too few": lambda data: data.pop("axes"),
    "text for a width": lambda data: data["steps"][0]["widths"].__setitem__(0, "1"),
    "a width too many": lambda data: data["steps"][0]["widths"].append(1),
    "wider than the group": lambda data: data["steps"][0]["widths"].__setitem__(0, 5),
    "a step that is not there": lambda data: data.update(chosen=len(data["steps"])),
    "a group that is not there": lambda data: data["axes"][-1]["groups"].append([9, 1]),
    "an axis that is not there": lambda data: data["allocations"][0].update(axes=[99]),
    "an axis that no setting has": lambda data: data["settings"][0].update(axis=99),
    "a cycle": lambda data: data["nodes"][1].update(sources=[1]),
    "a node of no layer": lambda data: data["nodes"][1].update(name="other"),
    "scores of no layer": lambda data: data.update(
        stages=[{"name": "importance", "layers": {"x": {"mean": 1, "quartiles": [1] * 5}}}]
    ),
    "an order that is too short": lambda data: data["groups"][0].update(order="0-1"),
    "runs that are none": lambda data: data["groups"][0].update(order="<script>"),
    "a tensor that is not there": lambda data: data["groups"][0]["members"][0].update(tensor="x"),
    "layers of another model": lambda data: data["plan"]["full_widths"].update(x=1),
}
MESSAGES = {
    "another format": "is not a ranp-survey file",
    "a newer version": "newer version of ranp",
    **dict.fromkeys(
        [
            "a width too many",
            "wider than the group",
            "a step that is not there",
            "a group that is not there",
            "an axis that is not there",
            "an axis that no setting has",
            "a cycle",
            "a node of no layer",
            "scores of no layer",
            "an order that is too short",
            "a tensor that is not there",
            "layers of another model",
        ],
        "the parts of this survey do not belong together",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(name: str, found: dict[str, Any], tmp_path: Path) -> None:
    data = copy.deepcopy(found)
    DAMAGE[name](data)
    with pytest.raises(ArtifactError, match=rf"survey\.json: .*{MESSAGES.get(name, 'does not match the format')}"):
        read_survey(write_survey(tmp_path, data))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": "ranp-survey", "version": 1}', "[" * 100_000])
def test_other_texts_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "survey.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"survey\.json: (is not|does not match|nests)"):
        read_survey(tmp_path / "survey.json")


def test_numbers_that_json_does_not_know_are_refused(found: dict[str, Any], tmp_path: Path) -> None:
    data = copy.deepcopy(found)
    data["seconds"] = {"tracing": float("nan")}
    (tmp_path / "survey.json").write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="the number NaN"):
        read_survey(tmp_path / "survey.json")


def test_no_file_and_no_folder(found: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such file"):
        read_survey(tmp_path / "survey.json")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_survey(tmp_path / "nowhere", found)


def test_without_jsonschema_the_error_says_what_to_install(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_survey(tmp_path, found)
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(RanpError, match=r"pip install 'ranp\[report\]'"):
        read_survey(path)


@pytest.mark.parametrize("name", ["pruned", "run"])
def test_version_1_is_read_as_version_2(name: str) -> None:
    path = GOLDEN / name / "survey.json"
    old, new = json.loads(path.read_text()), read_survey(path)
    assert (old["version"], new["version"], new["plan"]["version"]) == (1, 2, 2)
    assert new["unprunable"] == old.pop("frozen")
    assert new["plan"]["has_cross_channel_norm"] == old["plan"].pop("mixes")
    assert new["plan"]["resource_weight"] == old["plan"].pop("lam")
    assert {**new["plan"], **old["plan"], "version": 2} == new["plan"]
    del old["plan"]
    assert {**new, **old, "version": 2} == new
