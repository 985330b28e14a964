"""Understanding a model: which channels there are, what ties them together, and what they cost."""

from ranp.tracing._culprits import culprits
from ranp.tracing._records import Call, Note
from ranp.tracing._rules import RULES
from ranp.tracing._trace import Failure, Recorded, Traced, record, understand
from ranp.tracing._tracer import Rule, Tracer
from ranp.tracing._validate import refuse_unready, trace

__all__ = [
    "RULES",
    "Call",
    "Failure",
    "Note",
    "Recorded",
    "Rule",
    "Traced",
    "Tracer",
    "culprits",
    "record",
    "refuse_unready",
    "trace",
    "understand",
]
