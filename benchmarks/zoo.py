"""The zoo: widely used networks, pruned to a budget by ranp and by Torch-Pruning.

Run `python benchmarks/zoo.py` in an environment with the packages of some families (and `torch-pruning`). The results
of each family are written to `benchmarks/results/zoo/`, and the tables of all families measured so far to
`docs/coverage.md`; families whose package cannot be imported are skipped. Both tools run on one core, one after the
other in the same process, after both have pruned a small network to warm up. A network that takes too long only ends
its own process. With `--resume` only networks without results are measured: remove the entry of a network, or of one
tool for it, to measure that again.
"""

import json
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as PoolTimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from contestants import CONTESTANTS, Outcome
from coverage_page import page
from families import FAMILIES, Family, Member

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "zoo"
TABLE = ROOT / "docs" / "coverage.md"


def main(
    only: Annotated[list[str] | None, typer.Option("--family", help="A family to measure; all if not given.")] = None,
    budget: Annotated[float, typer.Option(help="Fraction of the multiply-adds to keep.")] = 0.25,
    timeout: Annotated[float, typer.Option(help="Seconds for one network and one tool.")] = 300.0,
    resume: Annotated[bool, typer.Option(help="Keep the results of an earlier run.")] = False,
) -> None:
    """Measure families and write the tables."""
    for family in FAMILIES:
        if only and family.name not in only:
            continue
        try:
            names = [member.name for member in family.members()]
        except ImportError as error:
            typer.echo(f"{family.name}: skipped, {error}")
            continue
        _measure(family, names, budget, timeout, resume)
    TABLE.write_text(page([json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]))
    typer.echo(f"wrote {TABLE.relative_to(ROOT)}")


def _measure(family: Family, names: list[str], budget: float, timeout: float, resume: bool) -> None:
    """Measure a family; the results are written after every network."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{family.package}.json"
    known: list[dict[str, Any]] = json.loads(path.read_text())["networks"] if resume and path.exists() else []
    rows = {row["name"]: row for row in known}
    worker = _Worker()
    for name in track(names, description=family.name):
        row = rows.setdefault(name, {"name": name})
        for tool in CONTESTANTS:
            if tool not in row:
                row[tool] = worker.run(timeout, family.name, name, tool, budget)
        result = {"family": family.name, "environment": _environment(family), "budget": budget, "members": len(names)}
        written = sorted(rows.values(), key=lambda row: names.index(row["name"]))
        path.write_text(json.dumps(result | {"networks": written}, indent=1) + "\n")
    worker.stop()


class _Worker:
    """A process that measures; it is replaced when a network takes too long or crashes it."""

    def __init__(self) -> None:
        self.pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, mp_context=context, initializer=_warm_up)
        pool.submit(int).result()
        return pool

    def run(self, timeout: float, *what: Any) -> dict[str, Any]:
        try:
            return self.pool.submit(_one, *what).result(timeout)
        except (PoolTimeoutError, BrokenProcessPool) as error:
            self.stop()
            self.pool = self._start()
            timed_out = isinstance(error, PoolTimeoutError)
            return asdict(Outcome("crashes", note=f"takes over {timeout:g} s" if timed_out else "the process died"))

    def stop(self) -> None:
        for process in self.pool._processes.values():
            process.kill()
        self.pool.shutdown(wait=False, cancel_futures=True)


def _warm_up() -> None:
    import torch
    from torch import nn

    torch.set_num_threads(1)

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))

    for prune in CONTESTANTS.values():
        prune(Member("warm-up", build, lambda: (torch.zeros(1, 3, 8, 8),)), 0.5)


def _one(family: str, name: str, tool: str, budget: float) -> dict[str, Any]:
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    members = next(entry.members() for entry in FAMILIES if entry.name == family)
    return asdict(CONTESTANTS[tool](next(member for member in members if member.name == name), budget))


def _environment(family: Family) -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("torch", "torch-pruning", family.package.replace("_", "-")):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


if __name__ == "__main__":
    typer.run(main)
