"""What pruning costs beside training: scoring against a plain step, and everything else in seconds.

Run `python benchmarks/overhead.py`. Scoring and the plain step alternate in one process and the median of their ratios,
round by round, is what counts, so that a noisy machine slows both alike. Memory is measured in fresh processes.
"""

import multiprocessing
import multiprocessing.connection
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import ranp
from ranp.costs.measure import reset_peak_memory, resident_bytes
from ranp.models import UNet3D

ROUNDS = 7
WIDTH, SIDE, CLASSES = 32, 48, 50
_LOSS = nn.functional.cross_entropy


@dataclass(frozen=True)
class Case:
    """One network with one batch."""

    model: nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor

    @classmethod
    def make(cls, width: int = WIDTH, side: int = SIDE) -> "Case":
        torch.manual_seed(0)
        return cls(
            UNet3D(1, CLASSES, width),
            torch.randn(1, 1, side, side, side),
            torch.randint(0, CLASSES, (1, side, side, side)),
        )

    def step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        _LOSS(self.model(self.inputs), self.targets).backward()

    def scoring(self, importance: str) -> Callable[[], object]:
        graph = ranp.trace(self.model, self.inputs)
        batches = [(self.inputs, self.targets)]
        return lambda: ranp.score(self.model, graph, batches, _LOSS, importance=importance)  # type: ignore[arg-type]


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def scoring_ratios(table: Table) -> None:
    case = Case.make()
    actions = {"parameter": case.scoring("parameter"), "neuron": case.scoring("neuron")}
    case.step()
    ratios: dict[str, list[float]] = {name: [] for name in actions}
    for _ in track(range(ROUNDS), description="scoring against a plain step", transient=True):
        for name, action in actions.items():
            before, spent, after = seconds(case.step), seconds(action), seconds(case.step)
            ratios[name].append(2 * spent / (before + after))
    for name, limit in (("parameter", 1.05), ("neuron", 0.75)):
        found = ratios[name]
        spread = f"{min(found):.2f} to {max(found):.2f}"
        table.add_row(f"scoring ({name}) / forward + backward", f"{statistics.median(found):.2f}", spread, f"{limit}")


def pipeline_seconds(table: Table) -> None:
    case = Case.make(width=64, side=64)
    ranp.trace(case.model, case.inputs)  # the first trace of a process loads parts of torch
    spent = []
    for _ in track(range(ROUNDS), description="tracing to verification", transient=True):
        result = ranp.prune(case.model, case.inputs, [], budget=ranp.Budget(macs=0.05), criterion="random")
        spent.append(sum(result.report.seconds.values()))
    row = f"{statistics.median(spent):.2f} s", f"{min(spent):.2f} to {max(spent):.2f} s", "1 s"
    table.add_row("trace + allocate + verify + apply, width 64 at 64³", *row)


def _peak(kind: str, side: int, pipe: multiprocessing.connection.Connection) -> None:
    case = Case.make(side=side)
    ranp.trace(case.model, torch.zeros(1, 1, 16, 16, 16))  # loads what torch loads late
    if kind == "trace":
        action: Callable[[], object] = partial(ranp.trace, case.model, case.inputs)
    else:
        action = case.step if kind == "step" else case.scoring(kind)
    reset_peak_memory()
    before = resident_bytes(peak=True)
    action()
    pipe.send((resident_bytes(peak=True) - before) / 2**20)


def peak_mib(kind: str, side: int) -> float:
    """Growth of a fresh process's peak resident memory."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_peak, args=(kind, side, sender))
    process.start()
    found = float(receiver.recv())
    process.join()
    return found


def memory(table: Table) -> None:
    small, large = peak_mib("trace", 32), peak_mib("trace", 192)
    table.add_row("memory of tracing at 192³ less that at 32³", f"{large - small:.0f} MiB", f"of {large:.0f} MiB", "0")
    step = peak_mib("step", SIDE)
    for name in ("parameter", "neuron"):
        found = peak_mib(name, SIDE)
        detail = f"{found:.0f} of {step:.0f} MiB"
        table.add_row(f"memory of scoring ({name}) / forward + backward", f"{found / step:.2f}", detail, "1")


def main() -> None:
    console = Console()
    table = Table("what", "median", "detail", "aim", title=f"U-Net, 15 layers, {torch.get_num_threads()} threads")
    scoring_ratios(table)
    pipeline_seconds(table)
    memory(table)
    console.print(table)


if __name__ == "__main__":
    main()
