"""Progress of work that takes longer than two seconds: one callback type for all of ranp."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0 where that is unknown)."""


def no_progress(what: str, done: int, total: int) -> None:
    """A progress callback that does nothing: the default of functions that take one."""
