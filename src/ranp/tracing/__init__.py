"""Understanding a model: which channels there are, what ties them together, and what they cost."""

from ranp.tracing._records import Note
from ranp.tracing._trace import Failure, Traced, record, understand

__all__ = ["Failure", "Note", "Traced", "record", "understand"]
