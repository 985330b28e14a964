"""Predicted and requested step times against measured ones.

    python benchmarks/step_time.py measure predictions
    python benchmarks/step_time.py measure budgets --only UNet3D
    python benchmarks/step_time.py measure policies --device cuda --precision bf16-mixed
    python benchmarks/step_time.py table

Needs an otherwise idle machine. `predictions` compares the steps of twelve plans of very different shape with a table
that has not seen them; `budgets` prunes to fractions of the step time and measures the result; `policies` compares the
default plans with narrowing evenly and with the paper's widths at equal multiply-adds. Results are added to
`benchmarks/results/step_time.json` network by network; a network that is there is not measured again, unless `--again`
says so. `table` prints the summaries as Markdown. For a trial: `--side 8 --seconds 1 --only "15 layers" --out FILE`.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer
from torch import nn

import ranp
from ranp.allocation import tied_groups
from ranp.graph import ChannelGraph, Ints
from ranp.tables import Table
from ranp.timing import StepTimer, Stopwatch, spread_of, widths_of
from training_networks import TrainingNetwork, networks

RESULTS = Path(__file__).parent / "results" / "step_time.json"
FRACTIONS = (0.2, 0.35, 0.5, 0.65, 0.8)
MACS = (0.05, 0.1, 0.25, 0.5)
PAPER: dict[str, Any] = {"min_width": 1, "round_to": 1}
Results: TypeAlias = dict[str, Any]
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Task:
    """A network and how it is trained."""

    network: TrainingNetwork
    model: nn.Module
    inputs: torch.Tensor
    setup: ranp.TrainingSetup
    graph: ChannelGraph
    timer: StepTimer
    seconds: float

    def in_turns(self, chosen: Mapping[str, Ints]) -> dict[str, list[float]]:
        """Seconds of training steps at several widths, which take turns."""
        with self.setup.limit_threads():
            steps = {name: self.timer.step(widths) for name, widths in chosen.items()}
            return Stopwatch(self.timer.device).in_turns(steps, limit_seconds=self.seconds)


def task_of(network: TrainingNetwork, samples: int, setup: dict[str, Any], seconds: float) -> Task:
    torch.manual_seed(0)
    model, batch = network.build().to(setup["device"]), network.batch(samples)
    how = ranp.TrainingSetup(loss_fn=nn.functional.cross_entropy, batch=batch, **setup)
    inputs = torch.zeros(network.shape, device=setup["device"])
    graph = ranp.trace(model, inputs)
    return Task(network, model, inputs, how, graph, StepTimer(model, graph, inputs, how), seconds)


# -- predictions -------------------------------------------------------------------------------------------------------


def measure_predictions(task: Task) -> Results:
    """Measured and predicted seconds of plans that the table has not seen."""
    chosen = plans(task) | {"full": task.graph.widths}
    # Before and after the table is measured, so that a drift of the device's speed cancels out.
    found = task.in_turns(chosen)
    begin = time.perf_counter()
    table = task.timer.table(limit_seconds=task.seconds)
    built = time.perf_counter() - begin
    for name, seconds in task.in_turns(chosen).items():
        found[name] += seconds
    table.evaluate(task.graph.widths)  # The first time, costs are fitted.
    begin = time.perf_counter()
    predicted = {name: table.evaluate(widths) for name, widths in chosen.items()}
    evaluated = (time.perf_counter() - begin) / len(chosen)
    rows = [
        {
            "plan": name,
            "measured": statistics.median(seconds),
            "predicted": predicted[name],
            "spread": spread_of(seconds),
        }
        for name, seconds in found.items()
    ]
    return {"build_seconds": built, "evaluation_seconds": evaluated, "warnings": table.warnings, "rows": rows}


def plans(task: Task) -> dict[str, Ints]:
    """Widths of very different shape, most of them not aligned."""
    full, random, graph = task.graph.widths, np.random.default_rng(7), task.graph
    _, decoder = tied_groups(graph)
    found = {
        "uniform, 0.7": full * 0.7,
        "uniform, 0.35": full * 0.35,
        "aligned uniform, 0.5": np.maximum(np.round(full * 0.5 / 8) * 8, 8),
        "aligned uniform, 0.3": np.maximum(np.round(full * 0.3 / 8) * 8, 8),
        "thin decoder, 0.9": np.where(decoder, 0.45, 0.9) * full,
        "thin decoder, 0.6": np.where(decoder, 0.24, 0.6) * full,
        "constant, 0.6": np.full(len(full), 0.6 * np.median(full)),
        "constant, 0.3": np.full(len(full), 0.3 * np.median(full)),
        "ranp-f, 0.4": allocated(task, "ranp-f", 0.4, **PAPER),
        "ranp-f, 0.15": allocated(task, "ranp-f", 0.15, **PAPER),
        **{f"random, {number}": full * np.exp(random.uniform(np.log(0.15), 0, len(full))) for number in (1, 2)},
    }
    return {name: np.clip(np.round(widths), 1, full).astype(np.int64) for name, widths in found.items()}


def allocated(task: Task, criterion: str, macs: float, **how: Any) -> Ints:
    """Widths of a plan within a budget of multiply-adds; neurons are scored on noise."""
    batch = task.setup.prepare_batch(task.setup.batch, task.timer.device)
    scores = ranp.score(task.model, task.graph, [batch], task.setup.loss_fn, criterion=criterion)
    return widths_of(task.graph, ranp.allocate(task.graph, scores, ranp.Budget(macs=macs), **how).keep)


def summarize_predictions(found: Results) -> tuple[str, ...]:
    tested = [row for row in found["rows"] if row["plan"] != "full"]
    errors = [abs(row["predicted"] / row["measured"] - 1) for row in tested]
    predicted, measured = (
        np.argsort(np.argsort([row[name] for row in tested])).astype(np.float64) for name in ("predicted", "measured")
    )
    return (
        f"{np.median(errors):.1%}",
        f"{np.quantile(errors, 0.9):.1%}",
        f"{np.corrcoef(predicted, measured)[0, 1]:.3f}",
        f"{found['build_seconds']:.0f} s",
        f"{found['evaluation_seconds'] * 1e3:.1f} ms",
    )


# -- budgets and policies ----------------------------------------------------------------------------------------------


def measure_budgets(task: Task) -> Results:
    """What steps take that were requested to take a fraction of the full network's, measured independently."""
    table = task.timer.table(limit_seconds=task.seconds)
    widths, notes = {"full": task.graph.widths}, list(table.warnings)
    for fraction in FRACTIONS:
        budget = ranp.Budget(step_time=fraction)
        how: dict[str, Any] = {"criterion": "uniform", "setup": task.setup, "times": table}
        try:
            result = ranp.prune(task.model, task.inputs, [], budget=budget, **how)
        except ranp.RanpError as error:
            notes.append(f"{budget}: {error}")
            continue
        widths[str(fraction)] = widths_of(task.graph, result.plan.keep)
        notes += result.report.warnings
    found = task.in_turns(widths)
    full = statistics.median(found.pop("full"))
    rows = [
        {"requested": float(name), "measured": statistics.median(seconds) / full, "spread": spread_of(seconds)}
        for name, seconds in found.items()
    ]
    return {"full_seconds": full, "warnings": notes, "rows": rows}


def summarize_budgets(found: Results) -> tuple[str, ...]:
    measured = {row["requested"]: f"{row['measured']:.3f}" for row in found["rows"]}
    return tuple(measured.get(fraction, "infeasible") for fraction in FRACTIONS)


def measure_policies(task: Task) -> Results:
    """Steps of the default plans, of narrowing evenly and of the paper's widths, at equal multiply-adds."""
    rows = []
    for macs in MACS:
        widths = {
            "default": allocated(task, "ranp-f", macs),
            "uniform": allocated(task, "uniform", macs),
            "paper": allocated(task, "ranp-f", macs, **PAPER),
        }
        found = task.in_turns(widths)
        rows.append({"macs": macs, **{name: statistics.median(seconds) for name, seconds in found.items()}})
    return {"warnings": [], "rows": rows}


def summarize_policies(found: Results) -> tuple[str, ...]:
    slower = [row["default"] / row["uniform"] - 1 for row in found["rows"]]
    faster = [1 - row["default"] / row["paper"] for row in found["rows"]]
    return f"{max(slower):+.1%}", f"{statistics.median(faster):+.1%}"


# -- commands ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Something to measure of every network, and its summary."""

    measure: Callable[[Task], Results]
    summarize: Callable[[Results], tuple[str, ...]]
    columns: tuple[str, ...]


PARTS = {
    "predictions": Part(
        measure_predictions,
        summarize_predictions,
        ("median error", "90th percentile", "rank correlation", "built in", "evaluated in"),
    ),
    "budgets": Part(measure_budgets, summarize_budgets, tuple(f"requested {each}" for each in FRACTIONS)),
    "policies": Part(measure_policies, summarize_policies, ("slower than uniform, at most", "faster than the paper's")),
}


@app.command()
def measure(
    part: Annotated[str, typer.Argument(help=f"{', '.join(PARTS)}.")],
    only: Annotated[str, typer.Option(help="Networks whose name contains this.")] = "",
    device: Annotated[str, typer.Option()] = "cpu",
    precision: Annotated[str, typer.Option()] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last")] = False,
    threads: Annotated[int, typer.Option()] = 1,
    side: Annotated[int, typer.Option(help="Voxels a side.")] = 32,
    samples: Annotated[int, typer.Option(help="Batch size.")] = 2,
    seconds: Annotated[float, typer.Option(help="Limit for each table, and for repetitions on a busy device.")] = 60,
    again: Annotated[bool, typer.Option("--again", help="Measure what has been measured.")] = False,
    out: Annotated[Path, typer.Option(help="File of results.")] = RESULTS,
) -> None:
    """Measure the networks that are not in the results."""
    setup: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "channels_last": channels_last,
        "threads": threads,
    }
    key = json.dumps({**ranp.TrainingSetup(**setup).key(torch.device(device)), "side": side, "samples": samples})
    for network in networks(side):
        results = json.loads(out.read_text()) if out.exists() else {}
        done = results.setdefault(key, {}).setdefault(part, {})
        if only not in network.name or (network.name in done and not again):
            continue
        try:
            done[network.name] = PARTS[part].measure(task_of(network, samples, setup, seconds))
        except ranp.RanpError as error:
            typer.echo(f"{network.name}: {error}", err=True)
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
        typer.echo(f"{network.name}: {' | '.join(PARTS[part].summarize(done[network.name]))}")


@app.command()
def table(out: Annotated[Path, typer.Option(help="File of results.")] = RESULTS) -> None:
    """Print the summaries of all results."""
    for key, parts in json.loads(out.read_text()).items():
        typer.echo(f"\n{', '.join(f'{name} {value}' for name, value in json.loads(key).items())}\n")
        for name, found in parts.items():
            rows = [(network, *PARTS[name].summarize(each)) for network, each in found.items()]
            typer.echo(f"{Table(name, ('network', *PARTS[name].columns), rows).markdown()}\n")


if __name__ == "__main__":
    app()
