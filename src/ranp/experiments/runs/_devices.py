"""Where a run computes, and in which precision: Lightning's Fabric."""

import os
from pathlib import Path
from typing import Any, Literal

import torch

from ranp.errors import InputError
from ranp.optional import optional_import


def make_fabric(precision: Literal["auto", "32", "bf16"], logs: Path | None = None, *, start: int = 0) -> Any:
    """Fabric on the best device there is, or on all those that torchrun started processes for.

    Args:
        precision: See `Training.precision`.
        logs: Folder of TensorBoard events; none are written if not given.
        start: Step that training starts from: later events, of a run that was cut off, are dropped.

    Raises:
        RanpError: A package is missing.
        InputError: A precision that the device has not.
    """
    optional_import("lightning", "train")
    from lightning.fabric import Fabric
    from lightning.fabric.loggers import TensorBoardLogger

    loggers = []
    if logs is not None:
        optional_import("tensorboard", "train")
        purge = {"purge_step": start + 1} if start else {}
        loggers = [TensorBoardLogger(logs.parent, name=logs.name, version="", **purge)]
    return Fabric(accelerator="auto", precision=fabric_precision(precision), loggers=loggers, **_processes())


def fabric_precision(precision: str) -> str:
    """Fabric's name of a recipe's precision: `32-true` or `bf16-mixed`."""
    on_cuda = torch.cuda.is_available()
    if precision == "auto":
        return "bf16-mixed" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if precision == "bf16" and on_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError("training.precision", got="'bf16'", expected="a precision that the GPU has", hint="use auto")
    return {"32": "32-true", "bf16": "bf16-mixed"}[precision]


def _processes() -> dict[str, Any]:
    """One process and device, or what torchrun says."""
    if "LOCAL_WORLD_SIZE" not in os.environ:
        return {"devices": 1}
    local, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    return {"devices": local, "num_nodes": world // local, "strategy": "ddp"}
