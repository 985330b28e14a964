"""Plans as data: the frozen format, the way there and back, and hostile files."""

import copy
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ranp
from helpers.networks import CASES
from helpers.oracles import EVERY_WIDTH, random_plan, scores_of
from ranp.errors import PlanError, RanpError
from ranp.plan import Plan, pack, unpack

GOLDEN = Path(__file__).parent / "data_files" / "plan_v2.json"
VERSION_1 = GOLDEN.with_name("plan_v1.json")


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 1, bias=False))


def small_plan() -> Plan:
    graph = ranp.trace(small_model(), torch.zeros(2, 1, 3))
    plan = ranp.allocate(graph, scores_of(graph, [1, 4, 3, 2]), ranp.Budget(macs=0.75), **EVERY_WIDTH)
    return dataclasses.replace(plan, versions={"ranp": "0.1.0", "torch": "2.13.0"})


def test_the_format_is_frozen() -> None:
    """If this fails, the format has changed: raise its version, and keep reading this one."""
    assert small_plan().to_json() == GOLDEN.read_text()
    assert Plan.from_json(GOLDEN.read_text()) == small_plan()


def test_version_1_is_still_read() -> None:
    assert Plan.from_json(VERSION_1.read_text()) == small_plan()
    for renamed in ("mixes", "lam"):
        data = json.loads(VERSION_1.read_text())
        del data[renamed]
        with pytest.raises(PlanError, match=r"^plan: the plan has no field .*restore it"):
            Plan.from_json(json.dumps(data))


def test_limits_on_other_resources_come_back() -> None:
    plan = dataclasses.replace(small_plan(), budget=ranp.Budget(params=0.5, custom={"energy": 0.25}))
    assert Plan.from_json(plan.to_json()) == plan
    for custom in ({"energy": 2}, {"macs": 0.5}, {"energy": "0.5"}, [], None):
        data = json.loads(plan.to_json())
        data["budget"]["custom"] = custom
        with pytest.raises(RanpError):
            Plan.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "name", ["residual", "linear_after_flatten", "transposed_in_few_blocks", "dot_product_attention"]
)
def test_there_and_back(name: str) -> None:
    graph = ranp.trace(CASES[name].build(), CASES[name].inputs())
    for seed in range(3):
        plan = random_plan(graph, seed, 0.4)
        assert Plan.from_json(plan.to_json()) == plan
        assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_what_a_plan_says() -> None:
    case = CASES["residual"]
    graph = ranp.trace(case.build(), case.inputs())
    scores = scores_of(graph, [0, 1, 2, 9, 10, 11, 3, 4, 8, 9, 10])
    # At 3 of 6 and 3 of 5 channels: 98 positions times 3 * 3 * 9 + 3 * 3 * 9 + 3 * 3 * 9 + 2 * 3.
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=98 * 249 / graph.cost().macs), min_width=2, round_to=1)
    assert plan.keep == {"stem": (3, 4, 5), "inner": (2, 3, 4)}
    assert plan.widths == {"stem": 3, "inner": 3, "outer": 3, "head": 2}
    assert plan.full_widths == {"stem": 6, "inner": 5, "outer": 6, "head": 2}
    assert plan.cost.macs == 98 * 249
    found = {(entry.tensor, entry.dim): (entry.keep, entry.reads) for entry in plan.slices}
    assert found == {
        ("stem.weight", 0): ((3, 4, 5), False),
        ("stem.bias", 0): ((3, 4, 5), False),
        ("inner.weight", 1): ((3, 4, 5), True),
        ("inner.weight", 0): ((2, 3, 4), False),
        ("inner.bias", 0): ((2, 3, 4), False),
        ("outer.weight", 1): ((2, 3, 4), True),
        ("outer.weight", 0): ((3, 4, 5), False),
        ("outer.bias", 0): ((3, 4, 5), False),
        ("head.weight", 1): ((3, 4, 5), True),
    }
    assert {(s.module, s.name): s.value for s in plan.settings} == {
        ("stem", "out_channels"): 3,
        ("inner", "in_channels"): 3,
        ("inner", "out_channels"): 3,
        ("outer", "in_channels"): 3,
        ("outer", "out_channels"): 3,
        ("head", "in_channels"): 3,
    }
    assert (plan.min_width, plan.round_to, plan.has_cross_channel_norm) == (2, 1, False)


@given(st.sets(st.integers(0, 40)))
def test_packed_indices(indices: set[int]) -> None:
    text = pack(tuple(sorted(indices)))
    assert unpack(text, 41) == tuple(sorted(indices))
    assert text.count("-") <= len(indices) / 2


# -- hostile and damaged plans -----------------------------------------------------------------------------------

NESTED = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "7", '"plan"', "{}", "{", "\x00", NESTED, '{"format": ' + NESTED + "}", "1" * 5000, "nan"],
    ids=range(12),
)
def test_texts_that_are_no_plan(text: str) -> None:
    with pytest.raises(PlanError, match=r"^plan: (is not valid JSON|is not a ranp-plan file|nests lists and objects)"):
        Plan.from_json(text)


def test_other_formats_and_versions() -> None:
    data = json.loads(GOLDEN.read_text())
    with pytest.raises(PlanError, match='is not a ranp-plan file; expected a JSON object with "format": "ranp-plan"'):
        Plan.from_json(json.dumps({**data, "format": "other"}))
    with pytest.raises(PlanError, match=r"was written by a newer version of ranp \(format version 3\); update ranp"):
        Plan.from_json(json.dumps({**data, "version": 3}))
    with pytest.raises(PlanError, match="unknown field 'code'"):
        Plan.from_json(json.dumps({**data, "code": "import os"}))


def every_field() -> list[tuple[Any, ...]]:
    """The path to every value of the golden plan."""

    def walk(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(found for key, item in entries for found in walk(item, (*path, key)))]

    return walk(json.loads(GOLDEN.read_text()), ())[1:]


def changed(path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> str:
    data = json.loads(GOLDEN.read_text())
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return json.dumps(data)


@pytest.mark.parametrize("value", [None, {}, {"a": []}, [[]], True, "-1", -1.5, float("nan"), float("inf")], ids=str)
def test_values_of_the_wrong_kind(value: Any) -> None:
    """At any place, a value of another kind is refused, or else gives a plan that is well-formed."""
    refused = 0
    for path in every_field():
        before = json.loads(GOLDEN.read_text())
        for key in path:
            before = before[key]
        if before is None or (isinstance(before, dict) and value == {}) or type(before) is type(value):
            continue

        def put(holder: Any, key: Any) -> None:
            holder[key] = copy.deepcopy(value)

        try:
            assert Plan.from_json(Plan.from_json(changed(path, put)).to_json())
            # A float where any number may stand, a limit that is not set, or a default.
            assert path in {("resource_weight",), ("budget", "macs"), ("min_width",), ("round_to",)}, path
        except RanpError:
            refused += 1
    assert refused > 60


def test_missing_fields() -> None:
    def remove(holder: Any, key: Any) -> None:
        del holder[key]

    fields = [path for path in every_field() if isinstance(path[-1], str) and path[0] in {"slices", "settings", "cost"}]
    fields += [path for path in every_field() if len(path) == 1 and path[0] not in {"policy", "rescale"}]
    assert len(fields) > 60
    for path in fields:
        with pytest.raises(PlanError):
            Plan.from_json(changed(path, remove))


@pytest.mark.parametrize(
    "keep",
    ["", "1-4", "3-1", "1,1", "2,1", "1,0-2", "1 -3", "-1", "1--3", "1-3,", "a", "1.0", "0x1", "٣", "1-3\n", "9" * 12],
)
def test_indices_that_are_none(keep: str) -> None:
    def put(holder: Any, key: Any) -> None:
        holder[key] = keep

    with pytest.raises(PlanError, match=r"^plan: .*(not ascending, or not below 4|keeps nothing of its tensor)"):
        Plan.from_json(changed(("slices", 0, "keep"), put))


@pytest.mark.parametrize("path", [("keep", "0"), ("slices", 0, "keep")])
def test_a_short_text_cannot_ask_for_much_memory(path: tuple[Any, ...]) -> None:
    def put(holder: Any, key: Any) -> None:
        holder[key] = f"0-{(1 << 24) - 1}"
        if "size" in holder:
            holder["size"] = 1 << 24

    start = time.perf_counter()
    with pytest.raises(PlanError):
        Plan.from_json(changed(path, put))
    assert time.perf_counter() - start < 0.2


def test_runs_that_go_backwards_do_not_make_room_for_others() -> None:
    data = json.loads(GOLDEN.read_text())
    data["keep"] = {str(number): f"0-{(1 << 22) - 1}" for number in range(50)} | {"last": "9999999999-0"}
    start = time.perf_counter()
    with pytest.raises(PlanError, match="keeps more than"):
        Plan.from_json(json.dumps(data))
    assert time.perf_counter() - start < 0.2


def test_an_unknown_field_may_have_any_name() -> None:
    for name in ("", "zzz", "__class__"):
        for path in ((), ("slices", 0), ("budget",), ("cost",)):

            def put(holder: Any, key: Any, name: str = name) -> None:
                (holder[key] if key is not None else holder)[name] = 1

            text = changed((*path,) or (None,), put)
            with pytest.raises(PlanError, match="has the unknown field"):
                Plan.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["slices"][0].update(tensor="../../etc/passwd"), "does not fit its shape"),
        (lambda data: data["slices"][0].update(tensor="0.__class__"), "does not fit its shape"),
        (lambda data: data["slices"][0].update(dim=-1), r"dim must be an integer from 0 to .*, not -1"),
        (lambda data: data["slices"][0].update(dim=3), "a slice of dimension 3 of '0.weight' does not fit its shape"),
        (lambda data: data["slices"][0].update(dim=2), "a slice of dimension 2 of '0.weight' does not fit its shape"),
        (lambda data: data["slices"][0].update(size=5), "does not fit its shape"),
        (
            lambda data: data["slices"][0].update(size=10**30),
            "size must be an integer of at least 1, below .* 100 bits",
        ),
        (lambda data: data["shapes"].update({"0.weight": [4, -1, 1]}), "shapes must be an integer from 0 to"),
        (lambda data: data["slices"].append(dict(data["slices"][0])), "sliced twice"),
        (lambda data: data["slices"].append({**data["slices"][0], "keep": "0"}), "sliced twice"),
        (lambda data: data["settings"].append(dict(data["settings"][0])), "a size of a module is set twice"),
        (lambda data: data["settings"].append({**data["settings"][0], "value": 1}), "a size of a module is set twice"),
        (lambda data: data["settings"][0].update(value=0), "value must be an integer of at least 1"),
        (lambda data: data["widths"].update({"0": 5}), "a layer is wider than in the full model"),
        (lambda data: data["widths"].update({"0": -1}), "widths must be an integer from 0 to"),
        (lambda data: data["widths"].update({"5": 1}), "widths and full_widths are of different layers"),
        (lambda data: data["cost"].update(macs=-1), "macs must be an integer from 0 to .*, not -1"),
        (lambda data: data["cost"].update(step_seconds=-0.5), "step_seconds must be a finite number of at least 0"),
        (
            lambda data: data["cost"].update(params=data["full_cost"]["params"] + 1),
            "the cost is above that of the full",
        ),
        (lambda data: data.update(seed=-1), r"seed must be an integer from 0 to 2\*\*64 - 1, not -1"),
        (lambda data: data.update(resource_weight=-1), "resource_weight must be a finite number of at least 0"),
        (lambda data: data.update(criterion="\ud800"), "is not valid JSON .*surrogates not allowed"),
        (lambda data: data["versions"].update({"\udfff": ""}), "is not valid JSON .*surrogates not allowed"),
    ],
)
def test_plans_that_contradict_themselves(change: Callable[[Any], Any], message: str) -> None:
    data = json.loads(GOLDEN.read_text())
    change(data)
    with pytest.raises(PlanError, match=message):
        Plan.from_json(json.dumps(data))


def test_pairs_of_surrogates_are_characters() -> None:
    data = json.loads(GOLDEN.read_text()) | {"criterion": "\U0001f600"}
    assert Plan.from_json(json.dumps(data)).criterion == "\U0001f600"


def widen_the_input(data: Any) -> None:
    """The plan of a network with one more channel in the last layer's input."""
    data["shapes"]["3.weight"][1] = data["slices"][-1]["size"] = 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["settings"][0].update(module="0.weight"), "expected a size"),
        (lambda data: data["settings"][0].update(module="__class__"), "expected a size"),
        (lambda data: data["settings"][0].update(name="forward"), "expected a size"),
        (lambda data: data["settings"][0].update(name="__class__"), "expected a size"),
        (lambda data: data["settings"][0].update(name="training"), "expected a size"),
        (lambda data: data["settings"][0].update(name="weight"), "expected a size"),
        (lambda data: data["settings"][0].update(name="normalized_shape[0]"), "expected a size"),
        (lambda data: data["settings"][0].update(name="normalized_shape[99]"), "expected a size"),
        (lambda data: data["settings"][0].update(name="out_channels[0]"), "expected a size"),
        (lambda data: data["settings"][0].update(name="out_channels[x]"), "expected a size"),
        (lambda data: data["settings"][0].update(value=5), "expected a size"),
        (widen_the_input, "apply: 3.weight: got shape \\(2, 4, 1\\); expected size 5 along dimension 1"),
        (lambda data: data["shapes"].update({"more.weight": [1]}), "got a model without 'more.weight'"),
        (lambda data: data["shapes"].pop("1.num_batches_tracked"), "with '1.num_batches_tracked'"),
    ],
)
def test_plans_that_fit_no_model(change: Callable[[Any], Any], message: str) -> None:
    data = json.loads(GOLDEN.read_text())
    change(data)
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PlanError, match=message):
        ranp.apply(model, Plan.from_json(json.dumps(data)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model[0].out_channels == 4


def test_keep_is_read_as_it_was_made() -> None:
    graph = ranp.trace(small_model(), torch.zeros(2, 1, 3))
    plan = ranp.allocate(graph, scores_of(graph, [4, 1, 3, 2]), ranp.Budget(macs=0.75), **EVERY_WIDTH)
    assert plan.keep == {"0": (0, 2, 3)}
    assert np.array_equal(ranp.apply(small_model(), plan)[0].weight.shape, [3, 1, 1])
