"""Several processes score as one does on all batches, stop together, and may have different numbers of batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from test_average import scored_on

PROCESSES = """
import json, sys
import torch
from datetime import timedelta
from helpers.processes import forked
from test_average import scored_on
torch.set_num_threads(1)
shares, threshold, importance, folder = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
def work(rank):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/start", rank=rank, world_size=len(shares), timeout=timedelta(seconds=60)
    )
    group = torch.distributed.group.WORLD
    scores = scored_on(shares[rank], stop_at_correlation=threshold, importance=importance, process_group=group)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump([scores.batches, scores.stability, scores.channels.tolist()], file)
sys.exit(forked(len(shares), work))
"""


ALONE = """
import sys
import torch
from datetime import timedelta
from torch import nn, distributed
from helpers.processes import forked
import ranp
torch.set_num_threads(1)
def loss(outputs, target):
    return (outputs - target).square().mean()
def work(rank):
    distributed.init_process_group(
        "gloo", init_method=f"file://{sys.argv[1]}/start", rank=rank, world_size=3, timeout=timedelta(seconds=60)
    )
    pair = distributed.new_group([1, 2])
    torch.manual_seed(rank)
    model, x = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)), torch.randn(2, 2, 6, 6)
    if rank == 0:
        # The others do not take part: this must not wait for them.
        result = ranp.prune(model, x, [(x, 0.5)] * 3, loss, budget=ranp.Budget(macs=0.5))
        assert result.scores.batches == 3
        assert result.verification.status == "exact"
    else:
        distributed.broadcast_object_list(found := [model.state_dict()], src=1, group=pair)
        model.load_state_dict(found[0])
        graph = ranp.trace(model, x)
        scores = ranp.score(model, graph, [(x, 0.5)], loss, process_group=pair)
        both = [None, None]
        distributed.all_gather_object(both, scores.channels.tolist(), group=pair)
        assert scores.batches == 2 and both[0] == both[1]
    try:
        ranp.score(model, ranp.trace(model, x), [(x, 0.5)], process_group=pair)
    except ranp.RanpError as error:
        assert str(error).startswith("process_group: " if rank == 0 else "loss_fn: "), error
sys.exit(forked(3, work))
"""


def run(script: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", script, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert found.returncode == 0, found.stderr


def test_processes_communicate_only_if_they_are_given_a_group(tmp_path: Path) -> None:
    run(ALONE, str(tmp_path))


def in_processes(
    shares: list[list[int]], folder: Path, stop_at_correlation: float | None = None, importance: str = "parameter"
) -> tuple[int, list[list[float]], list[float]]:
    """What every process gets that scores one of these shares: batches, stability, scores."""
    run(PROCESSES, json.dumps(shares), json.dumps(stop_at_correlation), importance, str(folder))
    first, *others = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(len(shares)))
    assert all(other == first for other in others)
    return tuple(first)


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


@pytest.mark.parametrize("importance", ["parameter", "neuron"])
def test_two_processes_stop_where_one_would(importance: str, tmp_path: Path) -> None:
    shares = [list(range(0, 16, 2)), list(range(1, 16, 2))]
    complete = scored_on(range(16), importance=importance)
    expected = {count: value for count, value in complete.stability if count > 2}
    threshold = sorted(expected.values())[1]
    stop = next(count for count, value in expected.items() if value >= threshold)
    batches, stability, channels = in_processes(shares, tmp_path, threshold, importance)
    assert batches == stop < 16
    assert dict(stability) == pytest.approx({count: value for count, value in expected.items() if count <= stop})
    np.testing.assert_allclose(channels, scored_on(range(stop), importance=importance).channels)


def test_a_process_with_a_smaller_share_continues_with_the_others(tmp_path: Path) -> None:
    shares = [[0, 1, 2, 3, 4, 5, 6, 7, 8], [9], [10, 11, 12, 13, 14]]
    batches, stability, channels = in_processes(shares, tmp_path)
    assert batches == 15
    np.testing.assert_allclose(channels, scored_on(range(15)).channels)
    # After 1, 2, 4 and 8 batches in each, as far as there are as many.
    batches_of_all = [[batch for share in shares for batch in share[:count]] for count in (1, 2, 4, 8)]
    scores = [scored_on(seen).channels for seen in batches_of_all]
    expected = [
        (len(seen), spearmanr(before, after).statistic)
        for seen, before, after in zip(batches_of_all[1:], scores, scores[1:], strict=False)
    ]
    assert [tuple(entry) for entry in stability] == [pytest.approx(entry) for entry in expected]
