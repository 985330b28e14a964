"""Writing files and folders at once or not at all, and by one of several processes."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError


def is_rank_zero() -> bool:
    """Whether this process is alone, or the first of those that torchrun started: the one that writes."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears under its name once it is complete, or not at all.

    Raises:
        ArtifactError: The folder exists already, or its parent cannot be written.
    """
    target = Path(folder)
    refuse_existing(target)
    missing: list[Path] = []
    partial: Path | None = None
    try:
        missing += [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        yield partial
        _open_to_readers(partial)
        refuse_existing(target)
        partial.rename(target)
    except OSError as error:
        raise ArtifactError(str(target), got=str(error), expected="a place that can be written") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # It is not empty, as it should be.
                parent.rmdir()


def _open_to_readers(folder: Path) -> None:
    """Give a folder and its files ordinary permissions: temporary ones are their owner's alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def refuse_existing(folder: Path) -> None:
    """Raise if something is already there.

    Raises:
        ArtifactError: It is.
    """
    if folder.exists() or folder.is_symlink():
        raise ArtifactError(
            str(folder),
            got="a path that exists",
            expected="a new folder",
            hint="choose another name or remove it; nothing is overwritten",
        )


def write_json(path: Path, value: Any) -> None:
    """Write JSON at once or not at all, with nothing that JSON does not know."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file at once or not at all; what was there stays until the new file is whole and on the disk."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
