"""Choosing the channels to keep: from scores and a budget to a plan, on arrays alone."""

from typing import TYPE_CHECKING

from ranp.allocation.threshold import ThresholdSweep, allocate
from ranp.deprecation import renamed_names

__all__ = ["ThresholdSweep", "allocate"]


if not TYPE_CHECKING:
    __getattr__ = renamed_names(__name__, {"Ladder": "ThresholdSweep"})
