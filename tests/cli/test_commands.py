"""The commands on a network give the same results as the library, as tables and as JSON."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import Result

import ranp as library
from helpers.simulated_device import simulate
from helpers.tiny_runs import CONTENT
from ranp.costs.time_file import read_times
from ranp.experiments.runs import RunFolder
from ranp.import_by_name import build_network, find
from ranp.memory import predict_memory
from ranp.storage import load_plan

Ranp = Callable[..., Result]

OLD_NAMES = {"unprunable": "frozen", "resource_weight": "lam"}
SHAPE = "--input 1,1,8,8"
NETWORK = f"nets.py:build {SHAPE} --set width=12"
PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
GOLDEN = Path(__file__).parents[1] / "golden" / "0.1"


@pytest.fixture
def results(ranp: Ranp) -> Callable[[str], dict[str, Any]]:
    """Runs a command line with --json; stdout must be one JSON object with the documented fields, old names last."""

    def run(line: str) -> dict[str, Any]:
        done = ranp(*shlex.split(line), "--json")
        assert done.exit_code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        command = line.split()[0]
        (row,) = re.findall(rf"^\| `{command}` \| (.*) \|$", PAGE.read_text(), flags=re.MULTILINE)
        names = re.findall(r"`(\w+)`", row)
        old = [OLD_NAMES[name] for name in names if name in OLD_NAMES]
        assert list(found) == ["format", "version", *names, *old]
        assert all(found[old] == found[new] for new, old in OLD_NAMES.items() if new in found)
        assert (found["format"], found["version"]) == (f"ranp-{command}", 1)
        return found

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def network(width: int = 12, seed: int = 0) -> nn.Module:
    return build_network("nets.py:build", {"width": width}, seed=seed)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(find("nets.py:batches", "test")())


def test_check(results: Callable[[str], dict[str, Any]], ranp: Ranp) -> None:
    found = results(f"check {NETWORK} --budget macs=50%")
    graph = library.trace(network(), torch.zeros(1, 1, 8, 8))
    assert found["full_cost"] == graph.cost().known()
    assert found["cost"]["macs"] <= found["full_cost"]["macs"] / 2
    assert (found["verified"], found["error"], found["budget"]) == ("exact", "", {"macs": 0.5})
    assert found["full_widths"] == {"0": 12, "3": 3}
    assert [entry["operator"] for entry in found["unprunable"]] == ["output"]
    shown = ranp(*shlex.split(f"check {NETWORK} --budget macs=50%")).stdout
    assert "unprunable: 3 channels" in shown
    assert "Verification: exact." in shown


def test_fit(results: Callable[[str], dict[str, Any]], ranp: Ranp, out: Path) -> None:
    line = f"fit {NETWORK} --input 2,1,8,8 --memory 100KiB --optimizer sgd".replace(SHAPE, "")
    found = results(f"{line} --loss cross-entropy --macs 100% --macs 75%")
    assert (found["memory_bytes"], found["batch"], found["size"]) == (100 * 1024, 2, [8, 8])
    x, y = torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    setup = library.TrainingSetup(loss_fn=F.cross_entropy, batch=(x, y), optimizer="sgd")
    same = library.fit(network(), x, setup, memory="100 KiB", macs=[1, 0.75])
    for row, expected in zip(found["rows"], same.rows, strict=True):
        assert row["cost"] == expected.cost.known()
        assert (row["process_bytes"], row["largest_batch"]) == (expected.process_bytes, expected.largest_batch)
        assert row["largest_size"] == list(expected.largest_size)
    full, pruned = found["rows"]
    assert full["command"] is None
    words = shlex.split(pruned["command"])
    assert words[0] == "ranp"
    assert ranp(*words[1:-1], out).exit_code == 0
    assert [len(kept) for kept in load_plan(out).keep.values()] == pruned["widths"] != full["widths"]
    shown = ranp(*shlex.split(line)).stdout
    assert "What fits into" in shown
    assert f"macs=0.75: {pruned['command']}" in shown


def test_fit_measures_times_on_request(ranp: Ranp, out: Path) -> None:
    line = f"fit {NETWORK} --memory 1GB --macs 100% --macs 75% --times {out} --json"
    rows = json.loads(ranp(*shlex.split(line)).stdout)["rows"]
    times = read_times(out)
    assert [row["cost"]["step_seconds"] for row in rows] == [times.evaluate(row["widths"]) for row in rows]
    again = json.loads(ranp(*shlex.split(line)).stdout)["rows"]
    assert again == rows, "the file is read"
    assert "training step" in ranp(*shlex.split(f"fit {NETWORK} --memory 1GB --macs 75% --time")).stdout


def test_of_several_processes_only_the_first_prints(ranp: Ranp, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        done = ranp(*shlex.split(f"check {NETWORK}"))
        assert done.exit_code == 0
        printed[rank] = done.stdout
    assert "Verification: exact." in printed["0"]
    assert printed["1"] == ""


def test_check_without_a_budget_takes_a_quarter_of_the_macs(results: Callable[[str], dict[str, Any]]) -> None:
    assert results(f"check {NETWORK}")["budget"] == {"macs": 0.25}


def test_profile(results: Callable[[str], dict[str, Any]], ranp: Ranp) -> None:
    found = results(f"profile {NETWORK}")
    assert found["total"] == library.trace(network(), torch.zeros(1, 1, 8, 8)).cost().known()
    assert found["input"] == [[1, 1, 8, 8]]
    shown = ranp(*shlex.split(f"profile {NETWORK}")).stdout
    for module in found["modules"]:
        row = next(line.split() for line in shown.splitlines() if line.split()[:1] == [module["name"]])
        assert row[1:3] == [module["kind"], f"{module['params']:,}"]
        assert row[4] == f"{module['macs'] / 1e6:,.2f}"
        assert row[6] == f"{module['activation_bytes'] / 2**20:,.3f}"
        assert row[5] == f"{module['macs'] / found['total']['macs']:.0%}"
    assert "█" not in shown


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
@pytest.mark.parametrize("criterion", ["ranp-m", "snip", "random"])
def test_prune_does_what_the_library_does(
    criterion: str, importance: Any, results: Callable[[str], dict[str, Any]], out: Path, user: Path
) -> None:
    how = f"--budget macs=55% --criterion {criterion} --importance {importance} --seed 3 --loss nets.py:loss"
    found = results(f"prune {NETWORK} {how} --data nets.py:batches --out {out}")
    expected = library.prune(
        network(seed=3),
        torch.zeros(1, 1, 8, 8),
        batches(),
        F.cross_entropy,
        budget=library.Budget(macs=0.55),
        criterion=criterion,
        importance=importance,
        seed=3,
    )
    assert (out / "plan.json").read_text() == expected.plan.to_json()
    loaded = library.load(out, network(seed=9))
    for ours, theirs in zip(loaded.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert found["widths"] == expected.plan.widths
    assert found["cost"] == expected.plan.cost.known()
    assert found["batches"] == (0 if criterion == "random" else 3)
    assert (found["verified"], found["out"]) == ("exact", str(out))
    assert {path.name for path in out.iterdir()} == {"plan.json", "weights.safetensors", "artifact.json", "survey.json"}


def test_prune_passes_all_options_on(results: Callable[[str], dict[str, Any]], out: Path, user: Path) -> None:
    how = "--min-width 3 --round-to 2 --resource-weight 7 --weights orthogonal --batches 2 --stop-at-correlation 0.1"
    found = results(f"prune {NETWORK} {how} --budget macs=70% --budget params=80% --data nets.py:batches --out {out}")
    plan = load_plan(out)
    assert (plan.min_width, plan.round_to, plan.resource_weight) == (3, 2, 7.0)
    assert plan.budget == library.Budget(macs=0.7, params=0.8)
    assert found["batches"] == 2
    assert [count for count, _ in found["stability"]] == [2]
    first = library.load(out, network())[0].weight.detach().flatten(1)
    assert torch.allclose(first @ first.T / (first[0] @ first[0]), torch.eye(len(first)), atol=1e-5)


def test_prune_to_a_step_time_and_training_memory(
    results: Callable[[str], dict[str, Any]], out: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(monkeypatch, rest_seconds=1e-5)
    how = "--optimizer sgd --precision bf16-mixed --channels-last --threads 1 --times times.json"
    limits = "--budget step_time=85% --budget train_memory=70% --min-width 1 --round-to 1"
    found = results(f"prune {NETWORK} --criterion uniform {limits} {how} --out {out}")
    assert found["budget"] == {"step_time": 0.85, "train_memory": 0.7}
    assert found["step_time"]["measured"] <= 1.05 * found["step_time"]["requested"]
    assert found["cost"]["step_seconds"] == found["step_time"]["predicted"]
    setup = library.TrainingSetup(optimizer="sgd", precision="bf16-mixed", channels_last=True, threads=1)
    x = torch.zeros(1, 1, 8, 8)
    assert found["cost"]["train_bytes"] == predict_memory(library.load(out, network()), x, setup).peak_bytes
    assert found["cost"]["train_bytes"] <= 0.7 * predict_memory(network(), x, setup).peak_bytes
    table = library.measure_times(network(), (x,), setup, file="times.json")
    assert table.evaluate([12]) == found["full_cost"]["step_seconds"]


def test_bench(results: Callable[[str], dict[str, Any]], ranp: Ranp, out: Path, user: Path) -> None:
    results(f"prune {NETWORK} --criterion uniform --budget macs=40% --out {out}")
    how = "--optimizer sgd --precision bf16-mixed --threads 1 --seconds 0"
    found = results(f"bench {out} {NETWORK} {how}")
    assert (found["plan"], found["batch"], found["memory"]) == (str(out), 1, "predicted")
    assert (found["setup"]["precision"], found["setup"]["optimizer"]) == ("bf16-mixed", "sgd")
    full, pruned = found["networks"]["full"], found["networks"]["pruned"]
    assert 0 < pruned["train_bytes"] < full["train_bytes"]
    assert full["samples_per_second"] == pytest.approx(1 / full["step_seconds"])
    shown = ranp(*shlex.split(f"bench {out / 'plan.json'} {NETWORK} {how}")).stdout
    for text in ("training step", "samples per second", "inference", "training memory, predicted", "ratio"):
        assert text in shown


def test_without_an_input_costs_are_those_of_the_first_batch(
    results: Callable[[str], dict[str, Any]], out: Path
) -> None:
    found = results(f"prune nets.py:build --data nets.py:batches --budget macs=60% --out {out}")
    assert found["input"] == [[2, 1, 8, 8]]
    assert found["batches"] == 3


@pytest.mark.parametrize("name", ["good.npz", "good.safetensors", "good.pt"])
def test_data_in_a_file(name: str, results: Callable[[str], dict[str, Any]], out: Path, user: Path) -> None:
    found = results(f"prune {NETWORK} --data {name} --batch 2 --budget macs=60% --out {out}")
    assert found["batches"] == 3
    with np.load("good.npz") as arrays:
        inputs, targets = torch.from_numpy(arrays["inputs"]).float(), torch.from_numpy(arrays["targets"]).long()
    given = list(zip(inputs.split(2), targets.split(2), strict=True))
    budget = library.Budget(macs=0.6)
    expected = library.prune(network(), torch.zeros(1, 1, 8, 8), given, F.cross_entropy, budget=budget)
    assert (out / "plan.json").read_text() == expected.plan.to_json()


@pytest.mark.parametrize("loss", ["cross-entropy", "dice-cross-entropy", "mse", "nets.py:Loss", "torch.nn:L1Loss"])
def test_losses_by_name(loss: str, results: Callable[[str], dict[str, Any]], out: Path) -> None:
    source = "noise" if ":" not in loss else "nets.py:batches" if "nets" in loss else "volumes.npz"
    x = np.ones((2, 1, 8, 8), np.float32)
    np.savez("volumes.npz", inputs=x, targets=np.zeros((2, 3, 8, 8)))
    found = results(f"prune {NETWORK} --data {source} --loss {loss} --budget macs=60% --out {out}")
    Path("volumes.npz").unlink()
    assert (found["data"], found["loss"]) == (source, loss)
    assert any("noise" in warning for warning in found["warnings"]) == (source == "noise")


def test_noise_is_the_same_for_the_same_seed(ranp: Ranp, tmp_path: Path) -> None:
    plans = []
    for number, seed in enumerate((0, 0, 1)):
        line = f"prune {NETWORK} --data noise --budget macs=60% --seed {seed} --out {tmp_path / str(number)}"
        shown = ranp(*shlex.split(line)).stdout
        assert "warning: neurons were scored on noise" in shown
        plans.append((tmp_path / str(number) / "plan.json").read_text())
    assert plans[0] == plans[1] != plans[2]


def test_data_of_a_recipe(results: Callable[[str], dict[str, Any]], ranp: Ranp, tmp_path: Path, out: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(CONTENT))
    ranp("data", "generate", recipe, "--out", tmp_path / "data", "--count", "6")
    network = "unet3d --set width=4 --set levels=2 --set out_channels=3"
    found = results(f"prune {network} --data {recipe} --folder {tmp_path / 'data'} --budget macs=50% --out {out}")
    assert found["input"] == [[2, 1, 8, 8, 8]]
    assert found["batches"] == 2
    assert found["loss"] == "dice-cross-entropy"


def test_apply_repeats_what_prune_did(results: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    pruned = results(f"prune {NETWORK} --data nets.py:batches --budget macs=60% --seed 5 --out {first}")
    again = results(f"apply {first} {NETWORK} --seed 5 --out {second}")
    for name in ("plan.json", "weights.safetensors", "artifact.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    same = ("model", "input", "budget", "criterion", "verified")
    same += ("full_cost", "cost", "full_widths", "widths", "unprunable")
    assert {name: pruned[name] for name in same} == {name: again[name] for name in same}
    other = results(f"apply {first / 'plan.json'} {NETWORK} --weights glorot --seed 5 --out {third}")
    assert (other["weights"], other["widths"]) == ("glorot", again["widths"])
    assert (third / "weights.safetensors").read_bytes() != (first / "weights.safetensors").read_bytes()


def test_a_plan_applies_to_other_classes(results: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    before = results(f"prune {NETWORK} --data nets.py:batches --budget macs=60% --out {first}")
    found = results(f"apply {first} {NETWORK} --set classes=7 --out {second}")
    width = before["widths"]["0"]
    assert found["widths"] == {"0": width, "3": 7}
    assert found["full_widths"] == {"0": 12, "3": 7}
    assert found["cost"]["macs"] == 64 * (9 * width + 7 * width)
    assert found["verified"] == "exact"
    assert (
        library.load(second, build_network("nets.py:build", {"width": 12, "classes": 7}, seed=0))[3].out_channels == 7
    )


def test_output_of_user_code_is_not_in_the_results(ranp: Ranp) -> None:
    found = ranp(*shlex.split("check nets.py:build --input 1,1,8,8 --json"))
    json.loads(found.stdout)
    assert "nets is imported" not in found.stdout


def test_old_fields_are_printed_next_to_the_new_ones_at_every_level(ranp: Ranp) -> None:
    runs = [GOLDEN / "run", GOLDEN / "run"]
    found = json.loads(ranp("compare", *runs, "--json").stdout)["runs"]
    results = [{"run": str(path), **RunFolder(path).read(path / "result.json")} for path in runs]
    assert "primary_metric" in results[0]
    assert found == [{**result, "headline": result["primary_metric"]} for result in results]
