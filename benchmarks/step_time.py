"""How well are step times predicted? Measured steps of pruned networks against a table that has not seen them.

    python benchmarks/step_time.py measure --network "U-Net, 15 layers"
    python benchmarks/step_time.py measure --device cuda
    python benchmarks/step_time.py table

For each network a table is measured (`ranp.timing`), then 12 plans of very different shape are applied, and their
training steps take turns on the otherwise idle device. `measure` adds to the results in
`benchmarks/results/step_time.json`, and skips what the machine lacks; `table` writes `docs/step-time.md`.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from torch import Tensor, nn

import ranp
from ranp.environment import hardware
from ranp.graph import ChannelGraph, Ints
from ranp.models import MobileNetV2, UNet3D
from ranp.module_utils import call_model, tensors_in
from ranp.tables import Table
from ranp.timing import StepTimer, Stopwatch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "step_time.json"
PAGE = ROOT / "docs" / "step-time.md"
ROUNDS = 4
Options = dict[str, Any]
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Case:
    """A network with an input that makes a step take some hundred milliseconds on one CPU core."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    package: str = "torch"


def cases() -> Iterator[Case]:
    """All networks whose packages are installed."""
    yield Case("U-Net, 15 layers", partial(UNet3D, 1, 3, 16), (2, 1, 32, 32, 32))
    yield Case("U-Net, 23 layers", partial(UNet3D, 1, 3, 16, levels=6), (2, 1, 32, 32, 32))
    yield Case("DynUNet, residual blocks", _dynunet, (2, 1, 32, 32, 32), "monai")
    yield Case("SegResNet", partial(_monai, "SegResNet", init_filters=16), (1, 1, 32, 32, 32), "monai")
    blocks: Options = {f"blocks_{part}": (1, 1, 1, 1) for part in ("down", "up")} | {"blocks_bottleneck": 1}
    yield Case("MedNeXt", partial(_monai, "MedNeXt", init_filters=16, **blocks), (1, 1, 32, 32, 32), "monai")
    plain: Options = {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}
    nnunet = "dynamic_network_architectures"
    yield Case("nnU-Net, PlainConvUNet", partial(_nnunet, "PlainConvUNet", **plain), (2, 1, 32, 32, 32), nnunet)
    residual: Options = {"n_blocks_per_stage": (1, 2, 2, 2), "n_conv_per_stage_decoder": 1}
    yield Case(
        "nnU-Net, ResidualEncoderUNet", partial(_nnunet, "ResidualEncoderUNet", **residual), (2, 1, 32, 32, 32), nnunet
    )
    yield Case("MobileNetV2-3D", MobileNetV2, (2, 3, 8, 64, 64))


def _monai(name: str, **options: Any) -> nn.Module:
    from monai.networks import nets

    network: nn.Module = getattr(nets, name)(spatial_dims=3, in_channels=1, out_channels=3, **options)
    return network


def _dynunet() -> nn.Module:
    levels: Options = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
    return _monai("DynUNet", filters=[16, 32, 64, 128], res_block=True, **levels)


def _nnunet(name: str, **options: Any) -> nn.Module:
    from dynamic_network_architectures.architectures import unet

    blocks: Options = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU, "conv_bias": True}
    blocks |= {"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "nonlin_kwargs": {"inplace": True}}
    sizes: Options = {
        "n_stages": 4,
        "features_per_stage": (16, 32, 64, 128),
        "kernel_sizes": 3,
        "strides": (1, 2, 2, 2),
    }
    network: nn.Module = getattr(unet, name)(input_channels=1, num_classes=3, **sizes, **blocks, **options)
    return network


# -- plans -------------------------------------------------------------------------------------------------------------


def plans(model: nn.Module, graph: ChannelGraph, inputs: Tensor) -> dict[str, Ints]:
    """Widths of very different shape, most of them not aligned."""
    full, random = graph.widths, np.random.default_rng(7)
    decoder = _in_decoder(graph)
    found = {
        "uniform, 0.7": full * 0.7,
        "uniform, 0.35": full * 0.35,
        "aligned uniform, 0.5": np.maximum(np.round(full * 0.5 / 8) * 8, 8),
        "aligned uniform, 0.3": np.maximum(np.round(full * 0.3 / 8) * 8, 8),
        "thin decoder, 0.9": np.where(decoder, 0.45, 0.9) * full,
        "thin decoder, 0.6": np.where(decoder, 0.24, 0.6) * full,
        "constant, 0.6": np.full(len(full), 0.6 * np.median(full)),
        "constant, 0.3": np.full(len(full), 0.3 * np.median(full)),
        "ranp-f, 0.4": _scored(model, graph, inputs, 0.4),
        "ranp-f, 0.15": _scored(model, graph, inputs, 0.15),
        **{f"random, {number}": full * np.exp(random.uniform(np.log(0.15), 0, len(full))) for number in (1, 2)},
    }
    return {name: np.clip(np.round(widths), 1, full).astype(np.int64) for name, widths in found.items()}


def _in_decoder(graph: ChannelGraph) -> npt.NDArray[np.bool_]:
    """Groups whose first layer comes after the smallest resolution, and has a larger one."""
    layers = [node for node in graph.nodes if node.kind == "layer" and len(node.shape) > 2]
    voxels = [int(np.prod(node.shape[2:])) for node in layers]
    lowest = voxels.index(min(voxels))
    names = {node.name for node, size in zip(layers[lowest:], voxels[lowest:], strict=True) if size > min(voxels)}
    return np.array([group.name.partition("#")[0] in names for group in graph.groups])


def _scored(model: nn.Module, graph: ChannelGraph, inputs: Tensor, budget: float) -> Ints:
    """Widths by the paper's criterion on noise."""

    def step(model: nn.Module, batch: Tensor) -> Tensor:
        return torch.stack([out.square().mean() for out in tensors_in(call_model(model, batch))]).sum()

    scores = ranp.score(model, graph, [inputs], step=step, criterion="ranp-f")
    plan = ranp.allocate(graph, scores, ranp.Budget(macs=budget), min_width=1, round_to=1)
    return np.array([len(plan.keep[group.name]) for group in graph.groups])


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One plan: its share of the multiply-adds, seconds of a step, and how much these differed."""

    plan: str
    macs: float
    measured: float
    spread: float
    predicted: float


def measured(case: Case, setup: ranp.TrainingSetup, limit_seconds: float) -> dict[str, Any]:
    """Results of one network."""
    torch.manual_seed(0)
    model, inputs = case.build(), torch.randn(case.shape)
    begin = time.perf_counter()
    graph = ranp.trace(model, inputs)
    traced = time.perf_counter()
    chosen = plans(model, graph, inputs) | {"full": graph.widths}
    timer = StepTimer(model, graph, inputs, setup)
    # Before and after the table is measured, so that a drift of the device's speed cancels out.
    found = in_turns(timer, chosen)
    built = time.perf_counter()
    table = timer.table(limit_seconds=limit_seconds)
    build_seconds = time.perf_counter() - built
    for name, seconds in in_turns(timer, chosen).items():
        found[name] += seconds
    table.evaluate(graph.widths)
    begin_evaluation = time.perf_counter()
    predicted = {name: table.evaluate(widths) for name, widths in chosen.items()}
    evaluation = (time.perf_counter() - begin_evaluation) / len(chosen)
    full = graph.cost().macs
    rows = [
        Row(name, graph.cost(chosen[name]).macs / full, statistics.median(seconds), _spread(seconds), predicted[name])
        for name, seconds in found.items()
    ]
    return {
        "network": case.name,
        "input": list(case.shape),
        "trace_seconds": traced - begin,
        "build_seconds": build_seconds,
        "samples": len(table.samples),
        "operators": len(table.operators),
        "evaluation_seconds": evaluation,
        "rows": [asdict(row) for row in rows],
    }


def in_turns(timer: StepTimer, chosen: dict[str, Ints]) -> dict[str, list[float]]:
    """Seconds of training steps at several widths, which take turns."""
    with timer.setup.limit_threads():
        steps = {name: timer.step(widths) for name, widths in chosen.items()}
        return Stopwatch(timer.device).in_turns(steps, limit_seconds=60)


def _spread(seconds: list[float]) -> float:
    return statistics.median(seconds) / min(seconds) - 1


@app.command()
def measure(
    network: Annotated[list[str] | None, typer.Option(help="Names of networks; by default all.")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    precision: Annotated[str, typer.Option()] = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last")] = False,
    threads: Annotated[int, typer.Option()] = 1,
    limit_seconds: Annotated[float, typer.Option(help="For the table of each network.")] = 30,
) -> None:
    """Measure networks, and add them to the results."""
    console = Console()
    if device == "cuda" and not torch.cuda.is_available():
        console.print("no CUDA device: skipped")
        return
    setup = ranp.TrainingSetup(device=device, precision=precision, channels_last=channels_last, threads=threads)  # type: ignore[arg-type]
    name = f"{hardware(torch.device(device))}, {precision}{', channels last' if channels_last else ''}"
    with setup.limit_threads():
        key = name.replace(f"{torch.get_num_threads()} threads", f"{threads} threads")
    for case in cases():
        if network and case.name not in network:
            continue
        if find_spec(case.package) is None:
            console.print(f"{case.name}: skipped, the package {case.package} is not installed")
            continue
        found = measured(case, setup, limit_seconds)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results.setdefault(key, {"torch": torch.__version__, "networks": {}})["networks"][case.name] = found
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        console.print(rows_table(found), summary([found]))


# -- tables ------------------------------------------------------------------------------------------------------------


def rows_table(found: dict[str, Any]) -> Table:
    rows = [
        (
            row["plan"],
            f"{row['macs']:.1%}",
            f"{row['measured'] * 1e3:.1f} ms",
            f"{row['spread']:.0%}",
            f"{row['predicted'] * 1e3:.1f} ms",
            f"{row['predicted'] / row['measured'] - 1:+.1%}",
        )
        for row in found["rows"]
    ]
    return Table(found["network"], ("plan", "MACs", "measured", "spread", "predicted", "error"), rows)


def summary(networks: list[dict[str, Any]]) -> Table:
    """Errors by network."""
    rows = []
    for found in networks:
        tested = [row for row in found["rows"] if row["plan"] != "full"]
        errors = [abs(row["predicted"] / row["measured"] - 1) for row in tested]
        rank = _rank_correlation([row["predicted"] for row in tested], [row["measured"] for row in tested])
        rows.append(
            (
                found["network"],
                " x ".join(map(str, found["input"])),
                f"{np.median(errors):.1%}",
                f"{np.quantile(errors, 0.9):.1%}",
                f"{rank:.3f}",
                f"{found['build_seconds']:.0f} s",
                f"{found['evaluation_seconds'] * 1e3:.1f} ms",
            )
        )
    header = ("network", "input", "median error", "90th percentile", "rank correlation", "built in", "evaluated in")
    return Table("Predicted step times", header, rows)


def _rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's."""
    first, second = (np.argsort(np.argsort(values)).astype(np.float64) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


@app.command()
def table() -> None:
    """Write the page."""


if __name__ == "__main__":
    app()
