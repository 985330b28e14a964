"""Deciding what stays: from scores and a budget to a plan, on arrays alone."""

from ranp.allocation._threshold import Ladder, allocate

__all__ = ["Ladder", "allocate"]
