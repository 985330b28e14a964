"""The machine and the software that results were measured with."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """Name of the GPU, if the device is one, then processor, cores, threads and system."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = named[0] if named else processor
    words = f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.system()}"
    return f"{torch.cuda.get_device_name(device)}; {words}" if device.type == "cuda" else words


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def memory_bytes(device: torch.device) -> int | None:
    """The memory of a GPU, or that of the machine or container; None where it is not known."""
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu" or not hasattr(os, "sysconf"):
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else ""
    return min(total, int(text)) if text.isdecimal() else total


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine ran out of memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
