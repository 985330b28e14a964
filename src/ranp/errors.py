"""Errors that ranp raises: each names the place, the problem and the fix in one sentence."""

import difflib
from collections.abc import Iterable


class RanpError(Exception):
    """Base of every error that a user of ranp can cause.

    Args:
        where: The place: an argument, a file, a module of the model.
        problem: What is wrong, as part of a sentence.
        got: What was found there, where that says more than the problem.
        expected: What should have been there.
        hint: What to do about it.

    Example:
        >>> print(RanpError("training", "ran out of memory", hint="lower training.batch"))
        training: ran out of memory; lower training.batch
        >>> print(RanpError("budget", got="macs=0", expected="a fraction in (0, 1]", hint="use macs=0.05"))
        budget: got macs=0; expected a fraction in (0, 1]; use macs=0.05
    """

    def __init__(self, where: str, problem: str = "", *, got: str = "", expected: str = "", hint: str = "") -> None:
        parts = [problem, f"got {got}" if got else "", f"expected {expected}" if expected else "", hint]
        told = "; ".join(part for part in parts if part)
        super().__init__(f"{where}: {told}" if told else where)
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

    A data loader passes on an error of its worker processes as one text; the text alone makes the error again.

    Example:
        >>> print(DataError("a.nii.gz", "the file is missing"))
        a.nii.gz: the file is missing
        >>> print(DataError("raised in worker process 0: a.nii.gz: the file is missing"))
        raised in worker process 0: a.nii.gz: the file is missing
    """


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
