"""The errors of ranp: each names the place, the problem and the fix in one sentence."""

import difflib
from collections.abc import Iterable


class RanpError(Exception):
    """Base class of the errors of ranp.

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
        message = "; ".join(part for part in parts if part)
        super().__init__(_in_one_line(f"{where}: {message}" if message else where))
        self.where = where


class InputError(RanpError, ValueError):
    """An argument, a batch or a loss of the wrong kind."""


class TraceError(RanpError, RuntimeError):
    """The model cannot be traced, or has nothing that can be pruned."""


class BudgetError(RanpError, ValueError):
    """A budget that is malformed or that no plan can meet."""


class PlanError(RanpError, ValueError):
    """A plan that is damaged, or that does not fit the model it is applied to."""


class ArtifactError(RanpError, ValueError):
    """A file or folder that is missing, damaged, not what ranp writes, or cannot be written."""


class DataError(RanpError, ValueError):
    """A data set with a file that is missing or damaged.

    A data loader re-raises an error of a worker process from its message alone, so that must be possible.

    Example:
        >>> print(DataError("a.nii.gz", "the file is missing"))
        a.nii.gz: the file is missing
        >>> print(DataError("raised in worker process 0: a.nii.gz: the file is missing"))
        raised in worker process 0: a.nii.gz: the file is missing
    """


class OutOfMemoryError(RanpError, MemoryError):
    """The device or the machine ran out of memory."""


class VerificationError(RanpError, RuntimeError):
    """The pruned model does not compute what the plan says it computes."""


def _in_one_line(text: str) -> str:
    """Text without line breaks, and with escapes for other characters that cannot be printed: names come from files."""
    if text.isprintable():
        return text
    joined = " ".join(line.strip() for line in text.splitlines())
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in joined)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to a misspelled one.

    Example:
        >>> nearest("rapn-f", ["ranp-f", "ranp-m", "snip"])
        "did you mean 'ranp-f'? known: ranp-f, ranp-m, snip"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    listing = "known: " + ", ".join(known)
    return f"did you mean {close[0]!r}? {listing}" if close else listing


def first_line(error: BaseException) -> str:
    r"""The first line of an error's message, or the name of its class if the message is empty.

    Example:
        >>> first_line(ValueError("no such file\nin this folder")), first_line(ValueError())
        ('no such file', 'ValueError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
