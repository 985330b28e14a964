"""Fixtures for pages: a pruned network's folder with a survey, and a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ranp
from ranp.explorer import survey, write_survey
from ranp.memory import MemoryPredictor
from ranp.models import UNet3D

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def model() -> UNet3D:
    return UNet3D(1, 3, width=8, levels=3)


@pytest.fixture(scope="session")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ranp.PruneResult]:
    """A folder as `ranp.save` and `write_survey` leave it, and what was pruned."""
    torch.manual_seed(0)
    x, y = torch.randn(1, 1, 16, 16, 16), torch.randint(0, 3, (1, 16, 16, 16))
    loss = torch.nn.functional.cross_entropy
    result = ranp.prune(model(), x, [(x, y)], loss, budget=ranp.Budget(macs=0.1, params=0.5))
    folder = ranp.save(result.model, result.plan, tmp_path_factory.mktemp("page") / "pruned")
    write_survey(folder, result.survey())
    return folder, result


class StepSeconds:
    """A made-up time of a training step: five milliseconds, and a tenth of one for every channel."""

    def evaluate(self, widths: Any) -> float:
        return 0.005 + 1e-4 * float(np.sum(widths))


@pytest.fixture(scope="session")
def timed(pruned: tuple[Path, ranp.PruneResult], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """The same network pruned to a time: the folder, the graph, which knows time and memory of training, the plan."""
    graph, scores, x = pruned[1].graph, pruned[1].scores, torch.zeros(1, 1, 16, 16, 16)
    graph = graph.with_costs(step_seconds=StepSeconds(), train_bytes=MemoryPredictor(model(), x, graph=graph).formula())
    plan = ranp.allocate(graph, scores, ranp.Budget(step_time=0.5))
    folder = ranp.save(ranp.apply(model(), plan), plan, tmp_path_factory.mktemp("page") / "timed")
    write_survey(folder, survey(graph, plan, scores))
    return folder, graph, plan


# Not for the whole session: as long as it lives, nothing else in its process can start an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium: that of the variable CHROMIUM, or the first on the path."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"no Chromium: none of {', '.join(CHROMIUM)} is on the path, and CHROMIUM is not set")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox does not work for root.
        as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=as_root)
        yield browser
        browser.close()
