"""The batches that pruning scores with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from helpers.tiny_runs import recipe
from ranp.experiments.runs._networks import _batches


def test_scoring_sees_the_same_batches_in_every_run_of_a_seed(data: Path) -> None:
    bundle = recipe().data_set().open(data)
    one_process = SimpleNamespace(global_rank=0, world_size=1, device=torch.device("cpu"))

    def batches(**changes: Any) -> list[torch.Tensor]:
        return [inputs for inputs, _ in _batches(recipe(**changes), bundle, one_process)]

    torch.manual_seed(5)
    first = batches()
    torch.manual_seed(6)
    again, other, all_of_them = batches(), batches(seed=1), batches(pruning__batches="all", pruning__batch=3)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert [len(batch) for batch in first] == [2, 2]
    assert [len(batch) for batch in all_of_them] == [3, 3]  # 4 samples: the second batch begins the next pass
