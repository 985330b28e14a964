"""Measured costs of a training step: seconds, and peak memory."""

import copy
import gc
import itertools
import math
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ranp.errors import RanpError

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


def step_seconds(
    models: Mapping[str, nn.Module],
    batch: Batch,
    loss_fn: Loss,
    make_optimizer: MakeOptimizer,
    *,
    repeats: int = 5,
    limit_seconds: float = math.inf,
) -> dict[str, float]:
    """Median time of a training step of each model, on copies.

    The models take turns, so that other load on the machine affects all of them alike.

    Args:
        models: Named models, each on the device to measure.
        batch: Inputs and targets of the step.
        loss_fn: Scalar loss of outputs and targets.
        make_optimizer: Optimizer of a model's parameters.
        repeats: Timed steps per model, after an untimed one.
        limit_seconds: Start no further round after this time; one is timed in any case.

    Returns:
        Seconds per model.
    """
    clones = {name: copy.deepcopy(model) for name, model in models.items()}
    loops = {
        name: timed_steps(clone, batch, loss_fn, make_optimizer(clone.parameters())) for name, clone in clones.items()
    }
    durations: dict[str, list[float]] = {name: [] for name in models}
    start = time.perf_counter()
    for done in range(repeats + 1):
        if done > 1 and time.perf_counter() - start > limit_seconds:
            break
        for name, loop in loops.items():
            durations[name].append(next(loop))
    return {name: statistics.median(found[1:]) for name, found in durations.items()}


def timed_steps(model: nn.Module, batch: Batch, loss_fn: Loss, optimizer: Optimizer) -> Iterator[float]:
    """Train on one batch without end; yields the duration of each step in seconds."""
    device = next(model.parameters()).device
    model.train()
    while True:
        begin = time.perf_counter()
        inputs, targets = (part.to(device) for part in batch)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        float(loss.detach())  # waits for the device
        yield time.perf_counter() - begin


def peak_step_bytes(
    models: Mapping[str, nn.Module], batch: Batch, loss_fn: Loss, make_optimizer: MakeOptimizer
) -> dict[str, int]:
    """Peak memory of a model and its training, above what was in use before.

    On CUDA it is the allocator's peak. On the CPU it is the peak of resident memory in a fresh process per model, in
    which freed memory is returned to the system at once: the reserve of an allocator varies by a tenth between runs.

    Args:
        models: Named models, all on one device. On the CPU, these and all other arguments must be picklable.
        batch: Inputs and targets of the steps.
        loss_fn: Scalar loss of outputs and targets.
        make_optimizer: Optimizer of a model's parameters.

    Returns:
        Bytes per model, over two steps: the optimizer's state exists from the second one on.

    Raises:
        RanpError: The step failed in the fresh process.
    """
    device = next(next(iter(models.values())).parameters()).device
    if device.type == "cuda":
        return {name: _peak_on_cuda(model, batch, loss_fn, make_optimizer) for name, model in models.items()}
    return _peak_in_processes(models, batch, loss_fn, make_optimizer)


def _peak_on_cuda(model: nn.Module, batch: Batch, loss_fn: Loss, make_optimizer: MakeOptimizer) -> int:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    _two_steps(copy.deepcopy(model), batch, loss_fn, make_optimizer)
    return torch.cuda.max_memory_allocated() - before


def _two_steps(model: nn.Module, batch: Batch, loss_fn: Loss, make_optimizer: MakeOptimizer) -> None:
    list(itertools.islice(timed_steps(model, batch, loss_fn, make_optimizer(model.parameters())), 2))


def _peak_in_processes(
    models: Mapping[str, nn.Module], batch: Batch, loss_fn: Loss, make_optimizer: MakeOptimizer
) -> dict[str, int]:
    """Run one fresh process per model, all at the same time: most of their time is spent on imports."""
    command = [sys.executable, "-c", "from ranp.costs.measure import _measure_peak; _measure_peak()"]
    # The GNU C library then maps larger blocks one by one, and unmaps them as soon as they are freed.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(64 * 2**10)}
    children: dict[str, Popen[str]] = {}
    try:
        for name, model in models.items():
            # The model is pickled separately: the process loads it after it has measured its baseline.
            task = (pickle.dumps(model), batch, loss_fn, make_optimizer)
            with tempfile.TemporaryFile() as file:
                pickle.dump(task, file)
                file.seek(0)
                children[name] = Popen(command, stdin=file, stdout=PIPE, stderr=PIPE, text=True, env=environment)
        return {name: _answer(name, child) for name, child in children.items()}
    finally:
        for child in children.values():
            child.kill()
            child.wait()


def _answer(name: str, child: Popen[str]) -> int:
    output, errors = child.communicate()
    if child.returncode:
        reason = errors.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]
        raise RanpError(f"peak memory of {name}", f"the training step in a fresh process failed: {reason[0]}")
    return int(output.split()[-1])


def _measure_peak() -> None:
    """In a fresh process: read a task from standard input, take two training steps, print the peak in bytes."""
    packed_model, batch, loss_fn, make_optimizer = pickle.load(sys.stdin.buffer)
    # The first step of a process costs memory once, whatever the model: threads, kernels, the autograd engine.
    tiny = nn.Conv3d(1, 1, 3)
    tiny(torch.zeros(1, 1, 8, 8, 8)).sum().backward()
    torch.optim.AdamW(tiny.parameters()).step()
    pickle.loads(packed_model)  # So do the modules that its classes are imported from.
    gc.collect()
    reset_peak_memory()
    before = resident_bytes(peak=False)
    _two_steps(pickle.loads(packed_model), batch, loss_fn, make_optimizer)
    print(resident_bytes(peak=True) - before)


def resident_bytes(*, peak: bool) -> int:
    """Resident memory of this process: the present amount, or the peak since `reset_peak_memory`."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        peak_size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak_size if sys.platform == "darwin" else peak_size * 1024
    # Not `ru_maxrss` on Linux: a child inherits its parent's peak there.
    label = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in status.read_text().splitlines() if line.startswith(label))
    return int(line.split()[1]) * 1024


def reset_peak_memory() -> None:
    """Reset this process's peak of resident memory to the present amount, where the system supports it (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
