"""What can be wrong with the files and the settings of a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ranp.errors import DataError, InputError


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file or folder of a data set.

    Attributes:
        path: The file or folder.
        got: What is wrong with it.
        expected: What should be there.
        hint: What to do about it.

    Example:
        >>> print(Problem(Path("a.pts"), "no file", "points", "unpack the archive again"))
        a.pts: got no file; expected points; unpack the archive again
    """

    path: Path
    got: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> DataError:
        """The same as an exception."""
        return DataError(str(self.path), got=self.got, expected=self.expected, hint=self.hint)


Report = Callable[[Problem], object]
"""Takes the problems that reading comes upon: `fail`, to stop at the first, or a list's `append`."""


def fail(problem: Problem) -> NoReturn:
    """Raise the problem as an error.

    Raises:
        DataError: Always.
    """
    raise problem.error()


def is_there(path: Path, report: Report, hint: str = "copy or unpack the data set again") -> bool:
    """Whether a file exists; reports it otherwise."""
    if path.is_file():
        return True
    report(Problem(path, "no file", "a file", hint))
    return False


def at_least_one(**settings: int | Sequence[int]) -> None:
    """Refuse sizes and counts of nothing.

    Raises:
        InputError: One of the settings is, or holds, a number below 1.
    """
    for name, setting in settings.items():
        if min([setting] if isinstance(setting, int) else setting) < 1:
            raise InputError(name, got=str(setting), expected="at least 1")
