"""Two processes: the plan is that of one, the training is one training, and the first process alone writes."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.tiny_runs import curve, recipe, run
from ranp.plan import Plan

PAIR = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import monai.transforms, monai.data, nibabel, torchmetrics, lightning.fabric, tensorboard
from ranp.experiments.data.metrics import RegionDice
from helpers.processes import forked
from helpers.tiny_runs import recipe, run
data, out, importance, port = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
def work(rank):
    os.environ.update(world, RANK=str(rank), LOCAL_RANK=str(rank), TORCHELASTIC_RUN_ID="test")
    if rank:
        Path.replace = Path.rename = Path.mkdir = None  # Nothing can be written without them.
    assert run(recipe(pruning__importance=importance, training__batch=1), data, out)["processes"] == 2
sys.exit(forked(2, work))
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def plan_of(out: Path) -> Plan:
    return Plan.from_json((out / "plan" / "plan.json").read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_two_processes_make_the_plan_of_one(importance: str, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PAIR, str(data), str(tmp_path / "two"), importance, str(free_port())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert found.returncode == 0, found.stderr
    result: dict[str, Any] = run(recipe(pruning__importance=importance, training__batch=1), data, tmp_path / "one")
    assert plan_of(tmp_path / "two") == plan_of(tmp_path / "one")
    first, second = (load_file(tmp_path / name / "plan" / "weights.safetensors") for name in ("one", "two"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["step"] for row in curve(tmp_path / "two")] == ["4", "8", "12"]
    assert result["processes"] == 1
    # Two processes see twice as many samples a step: this is another training.
    assert curve(tmp_path / "two") != curve(tmp_path / "one")
