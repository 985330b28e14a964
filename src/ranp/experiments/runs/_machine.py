"""The machine that a run computes on: its devices and precision, and what to do where it fails."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ranp.environment import ran_out_of_memory
from ranp.errors import ArtifactError, InputError, OutOfMemoryError, RanpError, first_line
from ranp.optional import optional_import

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_fabric(precision: str, device: torch.device | None = None) -> Any:
    """Lightning's Fabric on one device (the best of the machine if not given), or on all those of torchrun."""
    places: dict[str, Any] = {"devices": 1 if device is None or device.index is None else [device.index]}
    if "LOCAL_WORLD_SIZE" in os.environ:
        local, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        places = {"devices": local, "num_nodes": world // local, "strategy": "ddp"}
    accelerator = "auto" if device is None else device.type
    precision = fabric_precision(precision, device)
    return optional_import("lightning", "train").Fabric(accelerator=accelerator, precision=precision, **places)


def fabric_precision(precision: str, device: torch.device | None = None) -> str:
    """Fabric's name of a recipe's precision, `32-true` or `bf16-mixed`, on a device or on the best one there is."""
    on_cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    supported = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return "bf16-mixed" if supported else "32-true"
    if precision == "bf16" and on_cuda and not supported:
        raise InputError("training.precision", "the GPU does not support bf16", hint="use auto")
    return {"32": "32-true", "bf16": "bf16-mixed"}[precision]


@contextmanager
def translate_errors(what: str, *, memory: str, disk: str) -> Iterator[None]:
    """Turn failures of the machine while `what` is done into errors that say what to do: about memory, about the disk.

    Example:
        >>> with translate_errors("training", memory="lower training.batch", disk="free space"):
        ...     raise torch.OutOfMemoryError("tried to allocate 3 GiB")
        Traceback (most recent call last):
        ranp.errors.OutOfMemoryError: training: ran out of memory (tried to allocate 3 GiB); lower training.batch
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, RanpError) as error:
        reason = first_line(error)
        if _is_memory(error):
            raise OutOfMemoryError(what, f"ran out of memory ({reason})", hint=memory) from error
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise ArtifactError(what, f"the disk is full ({reason})", hint=disk) from error
        if "DataLoader worker" in str(error) and not isinstance(error, RanpError):
            hint = "it may have run out of memory: lower training.workers, or set it to 0 to see the error itself"
            raise RanpError(what, f"a worker process died ({reason})", hint=hint) from error
        raise


def _is_memory(error: BaseException | None) -> bool:
    while error is not None:
        if ran_out_of_memory(error):
            return True
        error = error.__cause__
    return False
