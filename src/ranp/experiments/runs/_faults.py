"""What can go wrong from outside, in words that say what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ranp.errors import ArtifactError, OutOfMemoryError, RanpError, first_line

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def translate_errors(what: str, *, memory: str, disk: str) -> Iterator[None]:
    """Turn faults of the machine into errors that name a remedy.

    Args:
        what: Was being done.
        memory: What to lower when memory is short.
        disk: What to do when the disk is full.

    Raises:
        OutOfMemoryError: Memory is short.
        RanpError: A worker process died.
        ArtifactError: The disk is full.

    Example:
        >>> with translate_errors("training", memory="lower training.batch", disk="free space"):
        ...     raise torch.OutOfMemoryError("tried to allocate 3 GiB")
        Traceback (most recent call last):
        ranp.errors.OutOfMemoryError: training: got out of memory (tried to allocate 3 GiB); expected enough memory; \
lower training.batch
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, RanpError) as error:
        first = first_line(error)
        if _is_memory(error):
            raise OutOfMemoryError(
                what, got=f"out of memory ({first})", expected="enough memory", hint=memory
            ) from error
        if isinstance(error, OSError) and error.errno in _FULL:
            raise ArtifactError(
                what, got=f"no room to write ({first})", expected="room on the disk", hint=disk
            ) from error
        if "DataLoader worker" in str(error) and not isinstance(error, RanpError):
            hint = "its memory may have run out: lower training.workers, or set it to 0 to see the fault itself"
            raise RanpError(what, got=first, expected="workers that live", hint=hint) from error
        raise


def _is_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__
    return False
