"""Measurements of a study: training steps of all variants, and the largest batches in the same memory."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ranp
from helpers.tiny_runs import quiet
from helpers.tiny_studies import make_request
from ranp.errors import InputError
from ranp.experiments.studies import measuring
from ranp.experiments.studies.measuring import (
    LARGEST_BATCH,
    largest_within,
    measure_study,
    workload,
)
from ranp.experiments.studies.results import RESULTS_FILE, Results, read_results
from ranp.experiments.studies.running import StudyRequest

Done = tuple[StudyRequest, Results]


@pytest.fixture
def mine(done: Done, tmp_path: Path) -> StudyRequest:
    """A copy of the study that was run, to write into."""
    shutil.copytree(done[0].out, tmp_path / "out")
    return make_request(tmp_path / "out", done[0].data[""])


@pytest.mark.parametrize("first", [1, 2, 5, 40, 64])
@pytest.mark.parametrize("most", [0, 1, 3, 26, 27, 64, LARGEST_BATCH])
def test_the_largest_batch_is_found_from_wherever_one_begins(first: int, most: int) -> None:
    measured: dict[int, bool] = {}

    def fits(batch: int) -> bool:
        assert batch not in measured  # Nothing is measured twice.
        measured[batch] = batch <= most
        return measured[batch]

    found = largest_within(fits, first)
    assert found == most or (most == LARGEST_BATCH and LARGEST_BATCH // 2 < found <= LARGEST_BATCH)
    assert found == 0 or measured[found]


def test_the_networks_have_the_initial_weights_of_the_runs(done: Done, tmp_path: Path) -> None:
    request, _ = done
    work = workload(request, "", quiet)
    assert list(work.models) == ["full", "half"]  # not what is infeasible
    for label, model in work.models.items():
        cost = ranp.trace(model, work.batch[0][:1]).cost()
        assert cost.macs == done[1]["runs"][label]["0"]["pruning"]["cost"]["macs"]
    assert [part.shape for part in work.batch] == [(2, 1, 8, 8, 8), (2, 8, 8, 8)]
    inputs, targets = work.batch_of(5)
    assert torch.equal(inputs, work.batch[0][[0, 1, 0, 1, 0]])
    assert torch.equal(targets, work.batch[1][[0, 1, 0, 1, 0]])
    with pytest.raises(InputError, match="--measure: there is no run of seed 0"):
        workload(make_request(tmp_path, request.data[""]), "", quiet)


def test_steps_of_all_variants_are_measured_and_kept(mine: StudyRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "REPEATS", 1)
    known = read_results("tiny", [mine.out / RESULTS_FILE])
    measure_study(mine, known, progress=quiet)
    found = read_results("tiny", [mine.out / RESULTS_FILE])["measured"][""]
    assert found == known["measured"][""]
    assert found["batch"] == 2
    for label in ("full", "half"):
        assert 0 < found["variants"][label]["step_seconds"] < 10
        assert found["variants"][label]["peak_bytes"] > 0


def test_mixed_precision_is_measured_as_it_is_trained(data: Path, done: Done) -> None:
    changes = (*done[0].changes, "training.precision=bf16")
    work = workload(make_request(done[0].out, data, changes=changes), "", quiet)
    seen: list[torch.dtype] = []
    model = work.models["half"]
    handle = next(m for m in model.modules() if isinstance(m, torch.nn.Conv3d)).register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    outputs = model(work.batch[0])
    handle.remove()
    assert (seen, outputs.dtype) == ([torch.bfloat16], torch.float32)


def test_the_largest_batches_are_searched_and_kept(
    mine: StudyRequest, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = done[1]
    macs = {label: results["runs"][label]["0"]["pruning"]["cost"]["macs"] for label in ("full", "half")}

    def peaks(models: dict[str, torch.nn.Module], batch: tuple[torch.Tensor, ...], *_: object) -> dict[str, int]:
        if len(batch[0]) > 2 * macs["full"] // macs["half"] + 1:
            raise torch.OutOfMemoryError  # It is too much as well.
        return {name: macs[name] * len(batch[0]) for name in models}

    monkeypatch.setattr(measuring, "peak_step_bytes", peaks)
    known = read_results("tiny", [mine.out / RESULTS_FILE])
    study = replace(mine.study, trains=False, batches=True)
    measure_study(replace(mine, study=study), known, progress=quiet)
    found = read_results("tiny", [mine.out / RESULTS_FILE])["batches"][""]
    sample = 8**3 * (4 + 8)  # inputs and targets
    limit = 2 * (macs["full"] + sample)
    assert found["limit_bytes"] == limit
    assert found["variants"]["full"]["largest"] == 2
    assert found["variants"]["half"]["largest"] == limit // (macs["half"] + sample)
    assert found["variants"]["half"]["peaks"]["2"] == 2 * (macs["half"] + sample)
