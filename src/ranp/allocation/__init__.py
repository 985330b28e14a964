"""Choosing the channels to keep: from scores and a budget to a plan, on arrays alone."""

from ranp.allocation.threshold import ThresholdSweep, allocate

__all__ = ["ThresholdSweep", "allocate"]
