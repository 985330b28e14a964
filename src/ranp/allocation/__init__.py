"""Choosing the channels to keep: from scores and a budget to a plan, on arrays alone."""

from ranp.allocation._allocate import (
    POLICIES,
    allocate,
    allocated_widths,
    channels_by_score,
    policy_named,
    require_feasible_budget,
)
from ranp.allocation._grid import WidthGrid
from ranp.allocation.balanced import Balanced, tied_groups

__all__ = [
    "POLICIES",
    "Balanced",
    "WidthGrid",
    "allocate",
    "allocated_widths",
    "channels_by_score",
    "policy_named",
    "require_feasible_budget",
    "tied_groups",
]
