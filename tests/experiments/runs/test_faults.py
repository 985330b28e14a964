"""Whatever happens to a run, it can go on as if it had not happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from helpers.tiny_runs import recipe, run, same_outcome
from ranp.errors import ArtifactError, RanpError
from ranp.experiments.runs import loop, run_recipe, translate_errors

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

Finished = tuple[Path, dict[str, Any]]

# Imports once; then forks one child after the other, each of which goes on with the run, and kills it.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import monai.transforms, monai.data, nibabel, torchmetrics, lightning.fabric, tensorboard
from ranp.experiments.runs import make_fabric
from ranp.experiments.data.metrics import RegionDice
from helpers.tiny_runs import recipe, run
data, out, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
kills = 0
while True:
    child = os.fork()
    if not child:
        run(recipe(), data, out, resume=True)
        os._exit(0)
    # Longer each time, so that a slow machine gets to the end, and a fast one not before some kills.
    end = time.monotonic() + draw.uniform(0.02, 0.15 * 1.1**kills)
    done = 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.005)
    if done:
        assert status == 0, status
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    assert kills < 200
print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_random_moments_lose_nothing(seed: int, finished: Finished, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLER, str(data), str(tmp_path / "out"), str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout.split()[-1]) >= 2
    assert same_outcome(finished[0], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".lock"]


class Crash(BaseException):
    """Nothing catches it."""


def crash_at(write: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the given renaming of a finished file or folder, counted from 0, fail; returns those that were begun."""
    begun: list[str] = []

    def patched(original: Callable[..., Any]) -> Callable[..., Any]:
        def rename(path: Path, target: Path) -> Any:
            begun.append(Path(target).name)
            if len(begun) == write + 1:
                raise Crash
            return original(path, target)

        return rename

    for name in ("replace", "rename"):
        monkeypatch.setattr(Path, name, patched(getattr(Path, name)))
    return begun


def test_a_crash_before_any_write_loses_nothing(data: Path, tmp_path: Path) -> None:
    chosen = recipe(training__steps=4, training__validate_every=2, training__checkpoint_every=1)
    with pytest.MonkeyPatch.context() as patch:
        writes = crash_at(10**6, patch)
        run(chosen, data, tmp_path / "whole")
    assert {"whole", "plan", "last.ckpt", "best.safetensors", "curve.csv", "model", "result.json"} <= set(writes)
    for number, name in enumerate(writes):
        out = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            crash_at(number, patch)
            with pytest.raises(Crash):
                run(chosen, data, out)
        run(chosen, data, out, resume=True)
        assert same_outcome(tmp_path / "whole", out), f"crash before {name} was there"


def test_a_resumed_run_starts_at_its_checkpoint(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "training":
            steps.append(done)
            if done == 8 and len(steps) == 8:
                raise Crash

    for _ in range(2):
        try:
            run_recipe(recipe(), data, tmp_path / "out", resume=True, progress=progress)
        except Crash:
            continue
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 9, 10, 11, 12]


def test_best_weights_that_are_ahead_of_the_checkpoint_are_not_forgotten(data: Path, tmp_path: Path) -> None:
    """Where a device does not repeat itself, those weights could not be had again."""
    out = tmp_path / "out"
    run(recipe(), data, out)
    (out / "result.json").unlink()
    tensors = load_file(out / "best.safetensors")
    row = {"step": 13, "seconds": 1.0, "loss": 1.0, "rate": 1.0, "dice": 0.99}
    save_file(tensors, out / "best.safetensors", metadata={"validation": json.dumps(row)})
    assert run(recipe(), data, out, resume=True)["best"] == row


def test_what_a_killed_run_had_begun_to_write_is_removed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Crash):
        run_recipe(recipe(), data, out, progress=_crash_in_training)
    (out / ".plan-xyz").mkdir()
    (out / ".plan-xyz" / "plan.json").touch()
    (out / ".last.ckpt.partial").touch()
    run(recipe(), data, out, resume=True)
    assert [path.name for path in out.glob(".*")] == [".lock"]


def _crash_in_training(what: str, done: int, total: int) -> None:
    if what == "training":
        raise Crash


def test_a_damaged_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(recipe(), data, out)
    (out / "result.json").unlink()
    content = (out / "last.ckpt").read_bytes()
    (out / "last.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=r"last\.ckpt: is not a usable checkpoint"):
        run(recipe(), data, out, resume=True)


def test_a_checkpoint_runs_no_code(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(recipe(), data, out)
    (out / "result.json").unlink()

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"format": Hostile()}, out / "last.ckpt")
    with pytest.raises(ArtifactError, match=r"last\.ckpt"):
        run(recipe(), data, out, resume=True)
    assert not (tmp_path / "touched").exists()


def test_a_full_disk_leaves_the_last_checkpoint(data: Path, tmp_path: Path, finished: Finished) -> None:
    """Files may not grow beyond a limit that the first checkpoint meets; the file system itself refuses the rest."""
    import resource

    out = tmp_path / "out"

    def progress(what: str, done: int, total: int) -> None:
        if what == "training" and done == 7:
            soft = (out / "last.ckpt").stat().st_size // 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(ArtifactError, match=r"training: the disk is full .*free disk space and .*--resume"):
            run_recipe(recipe(), data, out, progress=progress)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(out / "last.ckpt", weights_only=True)["progress"]["step"] == 6
    run(recipe(), data, out, resume=True)
    assert same_outcome(finished[0], out)


class Deadly(torch.utils.data.Dataset[Any]):
    """Kills the process that reads its third sample."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: Any) -> Any:
        if index[0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1, 8, 8, 8), torch.zeros(8, 8, 8, dtype=torch.long)


def test_a_worker_that_dies_is_an_error_soon(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(*_: Any, **__: Any) -> Any:
        return DataLoader(Deadly(), batch_sampler=[[(0, 0), (1, 0)], [(2, 0), (3, 0)]], num_workers=1)

    monkeypatch.setattr(loop, "random_batches", deadly)
    begin = time.perf_counter()
    with pytest.raises(RanpError, match=r"training: a worker process died .*lower training\.workers"):
        run(recipe(training__workers=1), data, tmp_path / "out")
    assert time.perf_counter() - begin < 30


def test_out_of_memory_says_what_to_lower(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", exhausted)
        with pytest.raises(RanpError, match=r"pruning: ran out of memory .*20\.00 GiB.*lower pruning\.batch"):
            run(recipe(), data, tmp_path / "out")
        with pytest.raises(RanpError, match=r"training: ran out of memory .*lower training\.batch"):
            run(recipe(pruning__method="uniform"), data, tmp_path / "uniform")
    run(recipe(), data, tmp_path / "out", resume=True)


def test_out_of_memory_within_a_forward_is_seen_through_its_wrapping() -> None:
    with (
        pytest.raises(RanpError, match="pruning: ran out of memory"),
        translate_errors("pruning", memory="less", disk="more"),
    ):
        _wrapped(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes"))


def _wrapped(fault: RuntimeError) -> None:
    raise RanpError("batch 0", "the forward pass failed") from fault


def test_other_errors_pass_unchanged() -> None:
    for error in (RuntimeError("shape"), OSError(2, "No such file"), RanpError("x", "y")):
        with pytest.raises(type(error)) as found, translate_errors("training", memory="", disk=""):
            raise error
        assert found.value is error


def test_results_are_json_that_others_can_read(finished: Finished) -> None:
    text = (finished[0] / "result.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
