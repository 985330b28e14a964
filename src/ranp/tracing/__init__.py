"""Understanding a model: which channels there are, what ties them together, and what they cost."""

from ranp.tracing._trace import Traced, trace_once
from ranp.tracing._tracer import Note

__all__ = ["Note", "Traced", "trace_once"]
