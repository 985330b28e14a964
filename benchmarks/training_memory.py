"""Predicted peak memory of training steps against real ones.

`python benchmarks/training_memory.py` takes real steps of several networks, full and pruned, on the CPU and, where
there is one, on a GPU (`--device` chooses), and writes `benchmarks/results/training_memory.json`. The oracles are: on
the CPU the bytes of all tensors that are alive at the same time, seen by a dispatch mode, and the peak of resident
memory in the second training of a fresh process; on the GPU `torch.cuda.max_memory_allocated`. The largest batch that
is predicted to fit into a limit has to run under it, and twice that batch must not: the limit is set for the CUDA
allocator or, on the CPU, by the operating system for a fresh process.
"""

import copy
import ctypes
import gc
import json
import os
import pickle
import resource
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import ranp
from ranp import Budget, Plan, TrainingSetup
from ranp.costs.measure import reset_peak_memory, resident_bytes
from ranp.environment import hardware, versions
from ranp.graph import ChannelGraph
from ranp.memory import MARGIN, MemoryPredictor, largest_batch
from ranp.module_utils import all_tensors
from training_networks import TrainingNetwork, networks

RESULTS = Path(__file__).parent / "results" / "training_memory.json"
LOSS = nn.functional.cross_entropy
WAYS = (
    (1, TrainingSetup(loss_fn=LOSS, optimizer="adamw")),
    (2, TrainingSetup(loss_fn=LOSS, optimizer="sgd")),
    (1, TrainingSetup(loss_fn=LOSS, optimizer="adamw", precision="bf16-mixed")),
    (2, TrainingSetup(loss_fn=LOSS, optimizer="sgd", channels_last=True)),
)
"""Batch sizes and ways of training."""
GIB = 2**30
RESULT_LISTS = ("steps", "largest_batch")


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive at the same time while real operators run."""

    def __init__(self, *held: Any) -> None:
        super().__init__()
        self.live: int = 0
        self.peak: int = 0
        self.known: dict[int, Any] = {}
        self._see(held)

    def _see(self, value: Any) -> None:
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and id(storage := leaf.untyped_storage()) not in self.known:
                self.live += storage.nbytes()
                self.known[id(storage)] = weakref.ref(storage, partial(self._free, id(storage), storage.nbytes()))
        self.peak = max(self.peak, self.live)

    def _free(self, key: int, size: int, _: Any) -> None:
        self.live -= size
        del self.known[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._see(out)
        return out


def live_peak(model: nn.Module, batch: Any, setup: TrainingSetup) -> int:
    """Bytes of tensors at the peak of a second real training step on the CPU."""
    trained = setup.prepare(copy.deepcopy(model))
    optimizer, batch = setup.make_optimizer(trained), setup.prepare_batch(batch, torch.device("cpu"))
    with LiveTensors(all_tensors(trained), batch, list(optimizer.state.values())) as counter:
        setup.run_step(trained, batch, optimizer)
        counter.peak = counter.live
        setup.run_step(trained, batch, optimizer)
    return int(counter.peak)


def cuda_peak(model: nn.Module, batch: Any, setup: TrainingSetup) -> dict[str, int]:
    """Peaks of the CUDA allocator in a third training step: allocated, and reserved with what fragmentation wastes."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    trained = setup.prepare(copy.deepcopy(model))
    optimizer, batch = setup.make_optimizer(trained), setup.prepare_batch(batch, torch.device("cuda"))
    for _ in range(2):
        setup.run_step(trained, batch, optimizer)
    torch.cuda.reset_peak_memory_stats()
    setup.run_step(trained, batch, optimizer)
    torch.cuda.synchronize()
    return {
        "allocated": torch.cuda.max_memory_allocated() - before,
        "reserved": torch.cuda.max_memory_reserved() - before,
    }


def plans_of(graph: ChannelGraph) -> Iterator[tuple[str, Plan | None]]:
    """The full network, narrowed evenly, and with random widths."""
    yield "full", None
    for criterion, macs, seed in (("uniform", 0.25, 0), ("random", 0.5, 1), ("random", 0.1, 2)):
        scores = ranp.score(nn.Identity(), graph, [], criterion=criterion, seed=seed)
        yield f"{criterion} {macs:.0%}", ranp.allocate(graph, scores, Budget(macs=macs))


def measure(network: TrainingNetwork, device: str) -> Iterator[dict[str, Any]]:
    """One row for each plan and way of training."""
    model = network.build()
    inputs = torch.zeros(network.shape)
    graph = ranp.trace(model, inputs)
    for samples, way in WAYS:
        batch = network.batch(samples)
        setup = replace(way, batch=batch, device=device)
        predictor = MemoryPredictor(model, inputs, setup, graph=graph)
        begin = time.perf_counter()
        formula = predictor.formula()
        formula_seconds = time.perf_counter() - begin
        for name, plan in plans_of(graph):
            widths = graph.widths if plan is None else np.array([len(plan.keep[each.name]) for each in graph.groups])
            pruned = model if plan is None else ranp.apply(model, plan)
            begin = time.perf_counter()
            predicted = predictor.predict(widths)
            row: dict[str, Any] = {
                "network": network.name,
                "plan": name,
                "batch": samples,
                "optimizer": way.optimizer,
                "precision": way.precision,
                "channels_last": way.channels_last,
                "predicted": predicted.peak_bytes,
                "formula": formula.evaluate(widths),
                "prediction_seconds": time.perf_counter() - begin,
                "formula_seconds": formula_seconds,
                "peak": f"{predicted.peak.phase} of {predicted.peak.path or 'the model'}, {predicted.peak.operator}",
                "composition": predicted.composition,
            }
            if device == "cuda":
                row |= cuda_peak(pruned, batch, setup)
            else:
                row["live"] = live_peak(pruned, batch, setup)
                if name in ("full", "uniform 25%"):
                    row |= process_peaks(pruned, batch, setup)
                    row["predicted_process"] = predicted.process_bytes
            yield row


def fits(network: TrainingNetwork, device: str, limit: int) -> dict[str, Any]:
    """Whether the largest batch that is predicted to fit into a limit runs under it, and twice that batch.

    On the CPU the limit is four times the memory of one sample.
    """
    model = network.build()
    setup = TrainingSetup(loss_fn=LOSS, batch=network.batch(1), device=device)
    predictor = MemoryPredictor(model, torch.zeros(network.shape), setup)
    if device == "cpu":
        limit = 4 * predictor.predict().process_bytes
    samples = largest_batch(predictor, limit)
    row: dict[str, Any] = {"network": network.name, "limit": limit, "margin": MARGIN, "largest_batch": samples}
    runs = runs_on_cuda if device == "cuda" else runs_on_cpu
    for key, count in (("runs", samples), ("twice_runs", 2 * samples)):
        row[key] = runs(model, network.batch(count), setup, limit)
    return row


def runs_on_cuda(model: nn.Module, batch: Any, setup: TrainingSetup, limit: int) -> bool:
    """Whether training steps run while the allocator may reserve this many bytes."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        cuda_peak(model, batch, setup)
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def runs_on_cpu(model: nn.Module, batch: Any, setup: TrainingSetup, limit: int) -> bool:
    """Whether training steps run in a fresh process that may allocate this many bytes beyond its start."""
    return bool(in_fresh_process(_runs_within, _packed(model, batch, setup), limit))


def process_peaks(model: nn.Module, batch: Any, setup: TrainingSetup) -> dict[str, int]:
    """Peaks of resident memory in a fresh process, above what is in use before.

    The first training also loads kernels and fills caches, once for the process; `process` is the peak of a second one.
    """
    first, second = in_fresh_process(_peaks, _packed(model, batch, setup))
    return {"process": second, "process_first": first}


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function of this module in a process in which freed memory is returned to the system at once."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(64 * 2**10)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _packed(model: nn.Module, batch: Any, setup: TrainingSetup) -> bytes:
    return pickle.dumps((model, batch, replace(setup, batch=None)))


def _train(packed: bytes) -> None:
    model, batch, setup = pickle.loads(packed)
    trained = setup.prepare(model)
    batch = setup.prepare_batch(batch, torch.device("cpu"))
    optimizer = setup.make_optimizer(trained)
    for _ in range(2):
        setup.run_step(trained, batch, optimizer)


def _peaks(packed: bytes) -> list[int]:
    found = []
    for _ in range(2):
        _free_unused()
        reset_peak_memory()
        before = resident_bytes(peak=False)
        _train(packed)
        found.append(resident_bytes(peak=True) - before)
    return found


def _runs_within(packed: bytes, limit: int) -> bool:
    model, batch, setup = pickle.loads(packed)
    _train(_packed(model, tree_map(lambda part: part[:1].clone(), batch), setup))
    del model, batch
    _free_unused()
    status = Path("/proc/self/status").read_text()
    used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
    try:
        _train(packed)
        return True
    except (RuntimeError, MemoryError) as error:
        typer.echo(f"  {type(error).__name__}: {str(error).splitlines()[0][:100]}")
        return False


def _free_unused() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def time_at_128() -> dict[str, float]:
    """CPU seconds to predict the 15-layer U-Net of width 32 at 128 voxels a side: a first time, and at other widths."""
    model, inputs = ranp.models.UNet3D(1, 3, width=32), torch.zeros(1, 1, 128, 128, 128)
    graph = ranp.trace(model, inputs)
    seconds = []
    for width in (graph.widths, graph.widths // 2):
        begin = time.process_time()
        predictor = MemoryPredictor(model, inputs, graph=graph)
        predictor.predict(width)
        seconds.append(time.process_time() - begin)
    return {"first": seconds[0], "other_widths": seconds[1]}


def summary(rows: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """Largest and median relative errors."""
    pairs = {"tensors": ("predicted", "allocated" if device == "cuda" else "live"), "formula": ("formula", "predicted")}
    if device == "cpu":
        pairs["process"] = ("predicted_process", "process")
    found: dict[str, Any] = {}
    for name, (guess, truth) in pairs.items():
        errors = np.array([row[guess] / row[truth] - 1 for row in rows if truth in row])
        found[name] = {"median": float(np.median(abs(errors))), "worst": float(errors[abs(errors).argmax()])}
    return found


def main(
    device: Annotated[list[str] | None, typer.Option(help="cpu or cuda; all that there are if not given.")] = None,
    side: Annotated[int, typer.Option(help="Voxels a side.")] = 48,
    limit: Annotated[float, typer.Option(help="Memory in GiB for the search of the largest batch on a GPU.")] = 16,
    only: Annotated[str, typer.Option(help="Networks whose name contains this.")] = "",
    out: Annotated[Path, typer.Option(help="File to write.")] = RESULTS,
) -> None:
    """Compare predictions with real steps, and write the results of each device."""
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for name in device or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        timing = time_at_128()
        chosen = [network for network in networks(side) if only in network.name]
        names = {network.name for network in chosen}
        # Networks that are not measured now keep their results.
        before = results.get(name, {"steps": [], "largest_batch": []})
        rows, searches = ([row for row in before[key] if row["network"] not in names] for key in RESULT_LISTS)
        for network in chosen:
            for row in measure(network, name):
                rows.append(row)
                truth = row.get("live") or row["allocated"]
                typer.echo(f"{name} {row['network']}, {row['plan']}: {row['predicted'] / truth - 1:+.2%}")
            searches.append(fits(network, name, int(limit * GIB)))
            typer.echo(f"{searches[-1]}")
            results[name] = {
                "environment": {"hardware": hardware(torch.device(name)), **versions(("ranp", "torch"))},
                "side": side,
                "summary": summary(rows, name),
                "cpu_seconds_at_128": timing,
                "largest_batch": searches,
                "steps": rows,
            }
            out.write_text(json.dumps(results, indent=1) + "\n")
        typer.echo(json.dumps(results[name]["summary"], indent=1))


if __name__ == "__main__":
    typer.run(main)
