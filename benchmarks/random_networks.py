"""Prune thousands of random networks, and check every promise for each by independent means.

    python benchmarks/random_networks.py --count 10000 --jobs 2

Networks are those of `tests/helpers/random_networks`, one for each number, and the checks those of
`tests/helpers/pruning_checks.py`, which also run in `make test` for the first few hundred numbers. Each network runs
under limits of time and memory. What is found is kept in a temporary folder, so that the command resumes where it was
interrupted; in the end, for every kind of failure the smallest network that still shows it is printed as Python code.
"""

import hashlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.pruning_checks import Outcome, check_network  # noqa: E402
from helpers.random_networks import Spec, UnfitError, build, draw, shrunk  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "random_networks.json"
FOLDER = Path(tempfile.gettempdir(), "ranp-random-networks")
BATCH = 20
Row = dict[str, Any]


# -- one network -------------------------------------------------------------------------------------------------------


def outcome_of(seed: int) -> Row:
    """What became of a network, as plain data."""
    network = draw(seed)
    outcome: Outcome = check_network(network.model, network.inputs, seed)
    return {"seed": seed, "status": outcome.status, "steps": len(network.spec), **asdict(outcome)}


def smallest(seed: int, check: str, reason: str) -> Row:
    """The smallest network that fails in the same way, and its code."""

    def failing(spec: Spec) -> tuple[int, str] | None:
        """A seed of settings that shows the failure, and what it says."""
        for other in (seed, 0, 1, 2):
            try:
                network = build(spec)
            except UnfitError:
                return None
            for failure in check_network(network.model, network.inputs, other).failures:
                if (failure.check, failure.reason) == (check, reason):
                    return other, failure.detail
        return None

    spec = shrunk(draw(seed).spec, lambda spec: failing(spec) is not None)
    settings, detail = failing(spec) or (seed, "")
    return {"seed": settings, "check": check, "reason": reason, "detail": detail, "code": build(spec).code}


# -- many, in processes with limits ------------------------------------------------------------------------------------


class Pool:
    """Processes that work on one item after the other, under limits of time and memory for each."""

    def __init__(self, folder: Path, jobs: int, seconds: int, memory_gib: float) -> None:
        self.folder, self.jobs, self.seconds, self.bytes = folder, jobs, seconds, int(memory_gib * 2**30)

    def map(self, work: Callable[[Any], Row], items: list[Any]) -> Iterator[tuple[Any, Row | str]]:
        """Results as they arrive; text says how a process died of an item."""
        waiting = [items[start : start + BATCH] for start in range(0, len(items), BATCH)][::-1]
        running: dict[int, tuple[list[Any], Path]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    batch = waiting.pop()
                    answers = Path(tempfile.mkstemp(dir=self.folder, suffix=".answers")[1])
                    running[self._fork(work, batch, answers)] = batch, answers
                child, status = os.wait()
                batch, answers = running.pop(child)
                lines = [json.loads(line) for line in answers.read_text().splitlines()]
                answers.unlink()
                yield from zip(batch, lines, strict=False)
                if len(lines) < len(batch):
                    yield batch[len(lines)], _death(status)
                    if rest := batch[len(lines) + 1 :]:
                        waiting.append(rest)
        finally:
            for child in running:
                os.kill(child, signal.SIGKILL)

    def _fork(self, work: Callable[[Any], Row], batch: list[Any], answers: Path) -> int:
        child = os.fork()
        if child:
            return child
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (self.bytes, self.bytes))
            log = os.open(os.devnull, os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            with answers.open("w") as stream:
                for item in batch:
                    signal.alarm(self.seconds)
                    stream.write(json.dumps(work(item)) + "\n")
                    stream.flush()
        finally:
            os._exit(1)


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "took too long" if number == signal.SIGALRM else f"was killed by signal {number}"
    return "ended the process"


# -- results -----------------------------------------------------------------------------------------------------------


def version() -> str:
    """Of everything that an outcome depends on."""
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests" / "helpers").rglob("*.py")]
    content = b"".join(path.read_bytes() for path in sorted(paths))
    return hashlib.sha256(content + torch.__version__.encode()).hexdigest()[:12]


def summary(rows: list[Row], minimal: list[Row]) -> Row:
    """Counts by outcome, with the numbers of the networks that failed or were refused."""
    statuses = Counter(row["status"] for row in rows)
    refused: dict[str, list[int]] = {}
    for row in rows:
        if row["refused"]:
            refused.setdefault(row["refused"], []).append(row["seed"])
    return {
        "networks": len(rows),
        "outcomes": dict(sorted(statuses.items())),
        "verified": dict(Counter(status for row in rows for status in row["verified"])),
        "prunable share of multiply-adds": round(sum(row["prunable"] for row in rows) / max(1, len(rows)), 4),
        "operators that keep channels": dict(Counter(name for row in rows for name in row["unprunable"]).most_common()),
        "refused": refused,
        "options refused": dict(Counter(note for row in rows for note in row["notes"])),
        "failures": {f"{check}: {reason}".strip(": "): seeds for (check, reason), seeds in failures(rows).items()},
        "minimal examples": minimal,
    }


def failures(rows: list[Row]) -> dict[tuple[str, str], list[int]]:
    """Numbers of networks by what failed; those with few steps come first."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in sorted(rows, key=lambda row: (row["steps"], row["seed"])):
        for key in dict.fromkeys((failure["check"], failure["reason"]) for failure in row["failures"]):
            found.setdefault(key, []).append(row["seed"])
    return found


def main(
    count: Annotated[int, typer.Option(help="How many networks.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Number of the first.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes at a time.")] = 2,
    seconds: Annotated[int, typer.Option(help="Limit for one network.")] = 120,
    memory: Annotated[float, typer.Option(help="GiB that one process may use.")] = 4.0,
    shrink: Annotated[bool, typer.Option(help="Look for the smallest network of each kind of failure.")] = True,
    results: Annotated[Path, typer.Option(help="Where the summary goes.")] = RESULTS,
    folder: Annotated[Path, typer.Option(help="Outcomes of single networks; kept.")] = FOLDER,
) -> None:
    """Prune random networks and check what is promised; exits with 1 if anything failed."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    pool, log = Pool(folder, jobs, seconds, memory), folder / f"{version()}.jsonl"
    wanted = range(seed, seed + count)
    lines = log.read_text().splitlines() if log.exists() else []
    rows = {row["seed"]: row for row in map(json.loads, lines) if row["seed"] in wanted}
    missing = [number for number in wanted if number not in rows]
    began, known = time.perf_counter(), len(rows)
    with log.open("a") as stream:
        for number, row in pool.map(outcome_of, missing):
            rows[number] = row if isinstance(row, dict) else _died(number, row)
            stream.write(json.dumps(rows[number]) + "\n")
            stream.flush()
            if len(rows) % 100 == 0 or len(rows) == count:
                typer.echo(_progress(rows, count, (time.perf_counter() - began) / (len(rows) - known)))
    found = [rows[number] for number in wanted]
    minimal = _minimal(pool, found) if shrink else []
    data = {"version": version(), "torch": torch.__version__, "seed": seed, **summary(found, minimal)}
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"{results}: {data['outcomes']}")
    raise typer.Exit(int("failed" in data["outcomes"]))


def _died(number: int, how: str) -> Row:
    failure = {"check": "process", "reason": f"a network {how}", "detail": ""}
    return {"seed": number, "status": "failed", "steps": 99, **asdict(Outcome()), "failures": [failure]}


def _progress(rows: dict[int, Row], count: int, seconds: float) -> str:
    statuses = ", ".join(f"{n} {status}" for status, n in Counter(row["status"] for row in rows.values()).items())
    return f"{len(rows)} of {count}: {statuses}; {seconds * (count - len(rows)) / 60:.0f} min left"


def _minimal(pool: Pool, rows: list[Row]) -> list[Row]:
    classes = [(seeds[0], *key) for key, seeds in failures(rows).items() if key[0] != "process"]
    found = []
    for (number, check, reason), row in pool.map(lambda item: smallest(*item), classes):
        found.append(row if isinstance(row, dict) else {"seed": number, "check": check, "reason": reason})
    return found


if __name__ == "__main__":
    typer.run(main)
