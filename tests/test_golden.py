"""Plans, artifacts and state dicts that ranp 0.1 saved still load, and compute what they computed then."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ranp
from ranp.integrations import attach_plan, attached_plan, resize_to_state_dict
from ranp.models import UNet3D
from ranp.storage import load_plan

GOLDEN = Path(__file__).parent / "golden" / "0.1"


def full_model() -> nn.Module:
    return UNet3D(1, 3, width=4, levels=2)


def structural_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 1), nn.LayerNorm([8, 4, 4]), nn.Conv2d(8, 2, 1))


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(GOLDEN / "expected.pt", weights_only=True)
    return found


def assert_computes(model: nn.Module, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(expected["inputs"]), expected["outputs"])


def versions(folder: Path) -> dict[str, int]:
    return {path.name: json.loads(path.read_text())["version"] for path in sorted(folder.glob("*.json"))}


def test_an_artifact_loads_and_is_saved_in_the_present_format(expected: dict[str, Tensor], tmp_path: Path) -> None:
    model, plan = ranp.load(GOLDEN / "pruned", full_model()), load_plan(GOLDEN / "pruned")
    assert_computes(model, expected)
    assert versions(GOLDEN / "pruned") == {"artifact.json": 1, "plan.json": 1, "survey.json": 1}
    again = ranp.save(model, plan, tmp_path / "again")
    assert versions(again) == {"artifact.json": 1, "plan.json": 2}
    assert load_plan(again) == plan
    assert_computes(ranp.load(again, full_model()), expected)


def test_the_plan_says_what_it_said() -> None:
    stored = json.loads((GOLDEN / "pruned" / "plan.json").read_text())
    plan = load_plan(GOLDEN / "pruned" / "plan.json")
    data = json.loads(plan.to_json())
    renamed = {"mixes": "has_cross_channel_norm", "lam": "resource_weight"}
    for name in stored.keys() - {"version", "budget"}:
        assert data[renamed.get(name, name)] == stored[name], name
    assert data["budget"] == {**stored["budget"], "step_time": None, "train_memory": None, "custom": {}}
    assert not data.keys() & renamed.keys()
    assert ranp.Plan.from_json(plan.to_json()) == plan == load_plan(GOLDEN / "pruned")


def test_a_plan_with_a_cross_channel_norm_applies() -> None:
    plan = load_plan(GOLDEN / "structural_plan.json")
    assert plan.has_cross_channel_norm
    model, inputs = structural_model(), torch.randn(2, 1, 4, 4)
    small = ranp.apply(model, plan)
    assert [tuple(module.weight.shape) for module in small] == [(5, 1, 1, 1), (5, 4, 4), (2, 5, 1, 1)]
    assert ranp.verify(model, plan, inputs).status == "structural"
    # The plan that the present version makes of the same network is the same.
    graph = ranp.trace(structural_model(), torch.zeros(1, 1, 4, 4))
    scores = ranp.score(structural_model(), graph, [], criterion="uniform")
    again = ranp.allocate(graph, scores, plan.budget, min_width=plan.min_width, round_to=plan.round_to)
    assert {**vars(again), "versions": plan.versions} == vars(plan)


def test_a_state_dict_with_a_plan_loads(expected: dict[str, Tensor]) -> None:
    stored = torch.load(GOLDEN / "state_dict.pt", weights_only=True)
    model = attach_plan(full_model())
    assert resize_to_state_dict(model, stored)
    model.load_state_dict(stored)
    assert attached_plan(model) == load_plan(GOLDEN / "pruned")
    assert_computes(model, expected)
    # What it stores now is read like what it has read.
    other = attach_plan(full_model())
    other.load_state_dict(model.state_dict())
    assert attached_plan(other) == attached_plan(model)
    assert_computes(other, expected)


def test_damage_is_found_in_old_artifacts_too(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "pruned", tmp_path / "copy"))
    (folder / "plan.json").write_text((folder / "plan.json").read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ranp.RanpError, match=r"plan\.json: .*does not match its checksum"):
        ranp.load(folder, full_model())
