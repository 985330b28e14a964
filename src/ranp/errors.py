"""Errors that ranp raises: each says where, what came, what was expected and what to do."""

import difflib
from collections.abc import Iterable


class RanpError(Exception):
    """Base of every error that a user of ranp can cause.

    Example:
        >>> print(RanpError("budget", got="macs=0", expected="a fraction in (0, 1]", hint="use macs=0.05"))
        budget: got macs=0; expected a fraction in (0, 1]; use macs=0.05
    """

    def __init__(self, where: str, *, got: str, expected: str, hint: str = "") -> None:
        parts = [f"{where}: got {got}", f"expected {expected}", hint]
        super().__init__("; ".join(part for part in parts if part))
        self.where = where


class InputError(RanpError, ValueError):
    """An argument, a batch or a loss of the wrong kind."""


class TraceError(RanpError, RuntimeError):
    """The model cannot be traced, or has nothing that can be pruned."""


class BudgetError(RanpError, ValueError):
    """A budget that is malformed or that no plan can meet."""


class PlanError(RanpError, ValueError):
    """A plan that does not fit the model it is applied to."""


class ArtifactError(RanpError, ValueError):
    """A saved artifact that is damaged, truncated, hostile or in the way."""


class DataError(RanpError, ValueError):
    """A data set with a file that is missing or damaged.

    A data loader passes an error of its worker processes on as one text; the text alone makes the error again.

    Example:
        >>> print(DataError("a.nii.gz", got="no file", expected="a volume"))
        a.nii.gz: got no file; expected a volume
        >>> print(DataError("raised in worker process 0: a.nii.gz: got no file"))
        raised in worker process 0: a.nii.gz: got no file
    """

    def __init__(self, where: str, *, got: str = "", expected: str = "", hint: str = "") -> None:
        if got:
            super().__init__(where, got=got, expected=expected, hint=hint)
        else:
            Exception.__init__(self, where)
            self.where = where


class OutOfMemoryError(RanpError, MemoryError):
    """The memory of the device or of the machine is too small for what was asked."""


class VerificationError(RanpError, RuntimeError):
    """The pruned model does not compute what the plan says it computes."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to a misspelt one.

    Example:
        >>> nearest("rapn-f", ["ranp-f", "ranp-m", "snip"])
        "did you mean 'ranp-f'? known: ranp-f, ranp-m, snip"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    listing = "known: " + ", ".join(known)
    return f"did you mean {close[0]!r}? {listing}" if close else listing


def first_line(error: BaseException) -> str:
    r"""What an error says in its first line, or its name where it says nothing.

    Example:
        >>> first_line(ValueError("no such file\nin this folder")), first_line(ValueError())
        ('no such file', 'ValueError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
