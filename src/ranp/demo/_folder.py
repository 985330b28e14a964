"""The output folder: it appears complete, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ranp.errors import ArtifactError


def first_free(parent: Path, name: str) -> Path:
    """The first of `name`, `name-2`, `name-3`, ... that does not exist in the parent folder."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(parent / each for each in names if not os.path.lexists(parent / each))


def check_free(folder: Path) -> None:
    """Refuse a path that is taken, or that has no folder to be in.

    Raises:
        ArtifactError: Something is there, or the parent is not a folder.
    """
    if os.path.lexists(folder):
        raise ArtifactError(
            "--out",
            got=f"'{folder}', which exists",
            expected="the name of a new folder",
            hint="name another one or remove it",
        )
    if not folder.absolute().parent.is_dir():
        raise ArtifactError(
            "--out", got=f"'{folder}'", expected="a name in a folder that exists", hint="make the parent folder"
        )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name beside its place; it gets its name at the end, or is removed.

    Args:
        folder: The folder to make.

    Yields:
        The temporary folder to write into.

    Raises:
        ArtifactError: The path is taken, or has no folder to be in.
    """
    check_free(folder)
    partial = folder.absolute().parent / f".{folder.name}.partial-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        check_free(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
