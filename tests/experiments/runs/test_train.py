"""A run: what it leaves behind, that it learns, that it can be repeated, and what it refuses."""

import json
import os
import shutil
import signal
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open

import ranp
from helpers.tiny_runs import curve, recipe, run, same_outcome
from ranp.errors import ArtifactError, BudgetError, InputError, RanpError
from ranp.experiments.recipes import Recipe
from ranp.experiments.runs import (
    finish_run,
    fit,
    lock_run_dir,
    loop,
    make_optimizer,
    open_run,
    prune_recipe,
    run_recipe,
)
from ranp.explorer import read_survey
from ranp.graph import Cost
from ranp.storage import load_plan

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

Finished = tuple[Path, dict[str, Any]]


def test_everything_is_there_and_nothing_else(finished: Finished) -> None:
    out, result = finished
    names = {"run.json", "plan", "pruning.json", "last.ckpt", "best.safetensors", "curve.csv", "result.json", "model"}
    assert {path.name for path in out.iterdir()} == names | {"survey.json", "logs", ".lock"}
    assert json.loads((out / "result.json").read_text()) == result
    assert any(path.name.startswith("events.") for path in (out / "logs").iterdir())
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_every_step_has_its_events_once_even_in_a_resumed_run(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("training", 11):  # After the events of step 10, which the checkpoint of step 8 lacks.
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe(), data, out, progress=stop)
    run(recipe(), data, out, resume=True)
    events = EventAccumulator(str(out / "logs"))
    events.Reload()
    assert {"loss", "rate", "dice"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [10]
    assert [event.step for event in events.Scalars("dice")] == [4, 8, 12]
    assert [event.value for event in events.Scalars("dice")] == pytest.approx(
        [float(row["dice"]) for row in curve(out)]
    )


def test_figures_are_those_of_the_curve_and_of_the_networks(finished: Finished) -> None:
    out, result = finished
    rows = curve(out)
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    assert result["best"]["dice"] == max(float(row["dice"]) for row in rows)
    assert (result["steps"], result["seed"], result["method"], result["primary_metric"]) == (12, 0, "ranp-f", "dice")
    assert 0 < result["step_seconds"] * result["steps"] < 3 * result["seconds"]
    assert 0 < result["seconds_waiting"] < result["seconds"]
    full = recipe().network.build(1, 3, seed=0)
    small = ranp.load(out / "model", full)
    example = torch.zeros(1, 1, 8, 8, 8)
    assert result["full_cost"] == ranp.trace(full, example).cost().known()
    assert result["cost"] == ranp.trace(small, example).cost().known()
    assert result["cost"]["macs"] <= 0.5 * result["full_cost"]["macs"]


def test_the_exported_weights_are_the_best_ones(finished: Finished) -> None:
    out, result = finished
    small = ranp.load(out / "model", recipe().network.build(1, 3, seed=0))
    with safe_open(out / "best.safetensors", framework="pt") as stored:
        assert json.loads(stored.metadata()["validation"]) == result["best"]
        assert all(torch.equal(tensor, stored.get_tensor(name)) for name, tensor in small.state_dict().items())
    # Batch norm counts the training steps.
    assert int(small.encoder[0].norm1.num_batches_tracked) == result["best"]["step"]


def test_it_learns(data: Path, tmp_path: Path) -> None:
    run(recipe(pruning__method="none", training__steps=100, training__validate_every=10), data, tmp_path / "out")
    dice = [float(row["dice"]) for row in curve(tmp_path / "out")]
    assert dice[0] < 0.2
    assert max(dice) > 0.4


def test_one_step_is_the_update_by_hand(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = loop.objective

    def recorded(name: str, ignore_index: int) -> Any:
        loss_fn = original(name, ignore_index)

        def record(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            seen.append((outputs.detach(), targets))
            return loss_fn(outputs, targets)

        return record

    monkeypatch.setattr(loop, "objective", recorded)
    chosen = recipe(training__steps=1, training__schedule="constant", training__optimizer="sgd")
    run(chosen, data, tmp_path / "out")
    model = ranp.load(tmp_path / "out" / "plan", chosen.network.build(1, 3, seed=0))
    bundle = chosen.data_set().open(data)
    numbers = next(iter(_stream(chosen, len(bundle.train))))  # type: ignore[arg-type]
    optimizer = make_optimizer(chosen.training, model.parameters())
    samples = []
    for index, seed in numbers:
        torch.manual_seed(seed)
        samples.append(bundle.train[index])
    inputs, targets = (torch.stack(part) for part in zip(*samples, strict=True))
    outputs = model.train()(inputs)
    torch.testing.assert_close(outputs, seen[0][0])
    assert torch.equal(targets, seen[0][1])
    original("dice-cross-entropy", -100)(outputs, targets).backward()
    optimizer.step()
    trained = torch.load(tmp_path / "out" / "last.ckpt", weights_only=True)["model"]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), trained[name])


def test_channels_last_is_the_same_but_for_rounding(data: Path, tmp_path: Path) -> None:
    trained = []
    for last in (False, True):
        out = tmp_path / str(last)
        run(recipe(training__steps=2, training__optimizer="sgd", training__channels_last=last), data, out)
        trained.append(torch.load(out / "last.ckpt", weights_only=True)["model"])
        weights = [tensor for tensor in trained[-1].values() if tensor.ndim == 5 and min(tensor.shape) > 1]
        assert [tensor.is_contiguous(memory_format=torch.channels_last_3d) for tensor in weights] == [last] * len(
            weights
        )
    for name, tensor in trained[0].items():
        torch.testing.assert_close(trained[1][name], tensor, rtol=1e-3, atol=1e-5)


def _stream(chosen: Any, count: int) -> Any:
    from ranp.experiments.data import ResumableSampler, derive_seed

    return ResumableSampler(count, chosen.training.batch, seed=derive_seed(chosen.seed, "training"), start=0, stop=1)


def test_same_seed_same_run_and_another_seed_another(finished: Finished, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    run(recipe(), data, tmp_path / "again")
    run(recipe(seed=1), data, tmp_path / "other")
    assert same_outcome(finished[0], tmp_path / "again")
    assert not same_outcome(finished[0], tmp_path / "other")


def test_pruning_alone_is_the_first_half_of_a_run(finished: Finished, data: Path, tmp_path: Path) -> None:
    facts = prune_recipe(recipe(), data, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "run.json",
        "plan",
        "pruning.json",
        "survey.json",
        ".lock",
    }
    assert prune_recipe(recipe(), data, tmp_path / "out", resume=True) == facts
    run(recipe(), data, tmp_path / "out", resume=True)
    assert same_outcome(finished[0], tmp_path / "out")


def test_pruning_says_what_it_saw(data: Path, tmp_path: Path) -> None:
    """Importance before and after reweighting, and the groups that would be empty without their guard."""
    loose = prune_recipe(recipe(), data, tmp_path / "loose")
    assert loose["guarded"] == []
    assert list(loose["importance"]) == ["importance", "weighted", "ranp-f"]
    means = list(loose["importance"]["weighted"].values())
    assert means == pytest.approx([max(loose["importance"]["importance"].values())] * len(means))
    assert loose["importance"]["importance"].keys() == loose["widths"].keys()
    tight = recipe(
        pruning__method="vanilla", pruning__budget={"sparsity": 0.6}, pruning__min_width=1, pruning__round_to=1
    )
    facts = prune_recipe(tight, data, tmp_path / "tight")
    plan = load_plan(tmp_path / "tight" / "plan")
    assert facts["guarded"]
    assert all(len(plan.keep[name]) == 1 for name in facts["guarded"])


def test_stable_scoring_says_what_it_saw(data: Path, tmp_path: Path) -> None:
    chosen = recipe(pruning__batches="stable", pruning__batch=1, pruning__stability=0.01, training__steps=1)
    result = run(chosen, data, tmp_path / "out")
    assert result["scoring_batches"] == 2
    ((count, correlation),) = result["scoring_stability"]
    assert count == 2
    assert 0.01 <= correlation <= 1


def test_loader_processes_change_nothing(finished: Finished, data: Path, tmp_path: Path) -> None:
    run(recipe(training__workers=2), data, tmp_path / "out")
    assert same_outcome(finished[0], tmp_path / "out")


def test_the_callers_random_state_stays(data: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(recipe(training__steps=1), data, tmp_path / "out")
    assert torch.equal(before, torch.get_rng_state())


def test_patience_ends_a_run_that_no_longer_improves(data: Path, tmp_path: Path) -> None:
    chosen = recipe(training__steps=40, training__validate_every=1, training__patience=3, training__rate=1e-30)
    result = run(chosen, data, tmp_path / "out")
    assert result["steps"] < result["steps_asked"] == 40
    values = [float(row["dice"]) for row in curve(tmp_path / "out")]
    best = values.index(max(values))
    assert result["best"]["step"] == best + 1
    assert result["steps"] == len(values) == best + 1 + 3


def test_epochs_are_passes_over_the_data(data: Path, tmp_path: Path) -> None:
    chosen = recipe(training__steps=None, training__epochs=2, training__validate_every=None, training__batch=3)
    assert run(chosen, data, tmp_path / "out")["steps"] == 4  # 4 samples in batches of 3: two steps a pass
    assert [row["step"] for row in curve(tmp_path / "out")] == ["2", "4"]


@pytest.mark.parametrize(("steps", "validations", "expected"), [(12, 3, [4, 8, 12]), (10, 4, [3, 5, 8, 10])])
def test_validations_are_spaced_evenly(
    steps: int, validations: int, expected: list[int], data: Path, tmp_path: Path
) -> None:
    chosen = recipe(training__steps=steps, training__validate_every=None, training__validations=validations)
    run(chosen, data, tmp_path / "out")
    assert [int(row["step"]) for row in curve(tmp_path / "out")] == expected


def by_the_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Recipe:
    """A recipe whose length is given in seconds, and a clock by which every step takes half a second."""
    ticks = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 4))
    return recipe(
        training__steps=None, training__seconds=seconds, training__validate_every=None, training__validations=4
    )


def test_a_training_by_the_clock_is_that_of_as_many_steps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schedule and the validations follow the time that is used."""
    run(recipe(training__steps=10, training__validate_every=None, training__validations=4), data, tmp_path / "steps")
    result = run(by_the_clock(monkeypatch, 5.0), data, tmp_path / "seconds")
    assert same_outcome(tmp_path / "steps", tmp_path / "seconds")
    assert (result["steps"], result["steps_asked"], result["seconds"]) == (10, None, 5.0)


def test_the_last_step_may_exceed_the_time(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(by_the_clock(monkeypatch, 4.7), data, tmp_path / "out")
    assert (result["steps"], result["seconds"]) == (10, 5.0)
    assert result["last"]["step"] == 10


def test_a_step_longer_than_the_time_between_validations_is_validated_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(by_the_clock(monkeypatch, 0.9), data, tmp_path / "out")
    assert [row["step"] for row in curve(tmp_path / "out")] == ["1", "2"]


def test_a_training_by_the_clock_is_resumed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = by_the_clock(monkeypatch, 5.0)
    run(chosen, data, tmp_path / "whole")

    def stop(what: str, done: int, total: int) -> None:
        if what == "training" and done == 3500:
            assert total == 5000
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(chosen, data, tmp_path / "out", progress=stop)
    result = run(chosen, data, tmp_path / "out", resume=True)
    assert same_outcome(tmp_path / "whole", tmp_path / "out")
    assert (result["steps"], result["seconds"]) == (10, 5.0)


def test_between_two_validations_the_caller_may_do_other_things(finished: Finished, data: Path, tmp_path: Path) -> None:
    """Two runs in turns are those that follow each other; the random state in between is the caller's."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with open_run(recipe(), data, tmp_path / "one") as one, open_run(recipe(seed=1), data, tmp_path / "other") as other:
        for row, _ in zip(fit(one), fit(other), strict=True):
            assert row == one.state.curve[-1]
            assert torch.equal(before, torch.get_rng_state())
            seconds = one.state.seconds
            time.sleep(0.05)
            assert one.state.seconds == seconds
        assert finish_run(one)["steps"] == 12
        finish_run(other)
    assert same_outcome(finished[0], tmp_path / "one")
    run(recipe(seed=1), data, tmp_path / "alone")
    assert same_outcome(tmp_path / "alone", tmp_path / "other")


@pytest.mark.parametrize("method", ["none", "uniform", "constant", "random", "snip"])
def test_every_kind_of_method(method: str, data: Path, tmp_path: Path) -> None:
    result = run(recipe(pruning__method=method, training__steps=1), data, tmp_path / "out")
    kept = result["cost"]["macs"] / result["full_cost"]["macs"]
    assert kept == 1 if method == "none" else 0.2 < kept <= 0.5


def test_prune_at_a_small_size_train_at_a_large_one(data: Path, tmp_path: Path) -> None:
    small = recipe(pruning__data={"size": [4, 4, 4]}, training__steps=1)
    result = run(small, data, tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "plan" / "plan.json").read_text())
    assert plan["full_cost"]["macs"] == result["full_cost"]["macs"] / 8


def test_a_plan_is_taken_over_for_other_classes(finished: Finished, data: Path, tmp_path: Path) -> None:
    taken = {"method": "ranp-f", "plan": str(finished[0] / "plan")}
    result = run(recipe(pruning=taken, training__steps=1), data, tmp_path / "out")
    assert result["method"] == "plan (ranp-f)"
    assert result["cost"] == finished[1]["cost"]


def test_a_second_run_into_a_folder_is_refused(finished: Finished, data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")}
    with pytest.raises(ArtifactError, match=r"exists.*--resume"):
        run(recipe(), data, finished[0])
    assert before == {path: path.stat().st_mtime_ns for path in finished[0].rglob("*")}


def test_a_finished_run_is_not_trained_again(finished: Finished, data: Path) -> None:
    begin = (finished[0] / "last.ckpt").stat().st_mtime_ns
    assert run(recipe(), data, finished[0], resume=True) == finished[1]
    assert (finished[0] / "last.ckpt").stat().st_mtime_ns == begin


def test_another_recipe_is_refused_by_the_field_that_differs(finished: Finished, data: Path) -> None:
    with pytest.raises(InputError, match=r"training\.rate: got 0\.5; expected 0\.01"):
        run(recipe(training__rate=0.5), data, finished[0], resume=True)
    assert run(recipe(training__workers=1), data, finished[0], resume=True) == finished[1]


def test_a_folder_of_something_else_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json: there is no such file"):
        run(recipe(), data, tmp_path, resume=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_two_processes_cannot_train_in_one_folder(finished: Finished, data: Path, tmp_path: Path) -> None:
    plain = recipe().model_dump(mode="json")
    out = shutil.copytree(finished[0], tmp_path / "out", ignore=shutil.ignore_patterns("result.json"))
    with lock_run_dir(out, plain, resume=True):
        child = os.fork()
        if not child:
            try:
                run(recipe(), data, out, resume=True)
            except ArtifactError as error:
                os._exit(7 if "another process" in str(error) else 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_processes_that_outlive_a_run_do_not_hold_its_folder(finished: Finished) -> None:
    """Loader processes notice only after a while that the run was killed."""
    plain = recipe().model_dump(mode="json")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with lock_run_dir(finished[0], plain, resume=True):
            if not os.fork():
                os.read(reading, 1)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.waitpid(child, 0)
        with lock_run_dir(finished[0], plain, resume=True):
            pass
    finally:
        os.write(writing, b"x")


def test_what_cannot_be_is_said_before_any_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="feasible"):
        run(recipe(pruning__budget={"macs": 1e-6}), data, tmp_path / "budget")
    with pytest.raises(InputError, match=r"network\.name unet3d: cannot be called with .*widht"):
        run(recipe(network__arguments={"widht": 4}), data, tmp_path / "network")
    with pytest.raises(RanpError, match=r"dataset\.json: the file is missing"):
        run(recipe(), tmp_path, tmp_path / "data")


def test_a_loss_that_is_not_finite_is_refused(data: Path, tmp_path: Path) -> None:
    chosen = recipe(training__rate=1e30, training__optimizer="sgd", training__schedule="constant")
    with pytest.raises(InputError, match=r"training: the loss is \w+ at step \d+.*lower training\.rate"):
        run(chosen, data, tmp_path / "out")


def test_progress_is_told(data: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run_recipe(recipe(), data, tmp_path / "out", progress=lambda *args: told.append(args))
    assert [(done, total) for what, done, total in told if what == "training"] == [(step, 12) for step in range(1, 13)]
    assert {"scoring", "training", "validation"} <= {what for what, *_ in told}


def test_a_run_leaves_a_survey_of_its_plan(finished: Finished) -> None:
    out, _ = finished
    found, plan = read_survey(out / "survey.json"), load_plan(out / "plan")
    chosen = found["steps"][found["chosen"]]
    assert Cost(**chosen["cost"]) == plan.cost
    assert chosen["forward_seconds"] > 0
    assert [stage["name"] for stage in found["stages"]] == ["importance", "weighted", "ranp-f"]
