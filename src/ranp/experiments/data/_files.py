"""Files of data sets: read them, and say what is wrong with them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from ranp.errors import DataError, RanpError, first_line

T = TypeVar("T")

AGAIN = "copy or unpack it again"


@dataclass(frozen=True)
class Problem:
    """A file or folder of a data set, what is wrong with it, and what to do about it.

    Example:
        >>> print(Problem(Path("a.pts"), "the file is missing", "unpack the archive again"))
        a.pts: the file is missing; unpack the archive again
    """

    path: Path
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> DataError:
        """The problem as an exception."""
        return DataError(str(self.path), self.message, hint=self.hint)


OnProblem = Callable[[Problem], object]
"""Called with each problem found: `fail`, to stop at the first, or a list's `append`."""


def fail(problem: Problem) -> NoReturn:
    """Raise the problem as an error."""
    raise problem.error()


def file_exists(path: Path, on_problem: OnProblem, hint: str = AGAIN) -> bool:
    """Whether a file exists; it is a problem if not."""
    if path.is_file():
        return True
    on_problem(Problem(path, "the file is missing", hint))
    return False


def read_file(path: Path, read: Callable[[Path], T], kind: str, on_problem: OnProblem) -> T | None:
    """What `read` returns for a file of this kind; None, and a problem, if the file is missing or reading it fails."""
    if not file_exists(path, on_problem):
        return None
    try:
        return read(path)
    except (MemoryError, RanpError):
        raise
    except Exception as error:  # A damaged file can raise anything.
        reason = getattr(error, "strerror", None) or first_line(error)
        on_problem(Problem(path, f"it cannot be read as {kind} ({reason})", AGAIN))
        return None
