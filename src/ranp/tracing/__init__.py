"""Understanding a model: which channels there are, what ties them together, and what they cost."""

from ranp.tracing._trace import Shapes, run_fake, trace_once

__all__ = ["Shapes", "run_fake", "trace_once"]
