"""Exchanging values between processes leaves channels alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROCESSES = """
import sys
from datetime import timedelta
import torch
import torch.distributed as dist
from torch import nn
import ranp
from helpers.networks import Net
from helpers.processes import forked

torch.set_num_threads(1)
x = torch.zeros(2, 3, 9, 9)

class Centered(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
    def forward(self, x):
        dist.broadcast(self.mean, 0)
        mean = x.mean((0, 2, 3))
        dist.all_reduce(mean)
        return x - (self.mean + mean)[:, None, None]

def network():
    layers = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5))
    return nn.Sequential(*layers, nn.Conv2d(5, 2, 1))

def work(rank):
    dist.init_process_group(
        "gloo", init_method=f"file://{sys.argv[1]}/start", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    parallel = nn.parallel.DistributedDataParallel(network())
    assert [group.width for group in ranp.trace(parallel, x).groups] == [6, 5]
    assert parallel.broadcast_buffers
    centered = nn.Sequential(nn.Conv2d(3, 6, 3), Centered(), nn.Conv2d(6, 2, 1))
    assert [group.width for group in ranp.trace(centered, x).groups] == [6]

sys.exit(forked(2, work))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_collectives_leave_channels_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESSES, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
