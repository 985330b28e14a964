"""Deciding what stays: from scores and a budget to a plan, on arrays alone."""

from ranp.allocation._threshold import ThresholdSweep, allocate

__all__ = ["ThresholdSweep", "allocate"]
