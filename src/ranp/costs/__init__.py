"""What a network costs: exact formulas of its widths, and measured step times and memory."""

from ranp.costs.formulas import RESOURCES, Cost, CostTable, OutputBytes, Resource, Terms
from ranp.costs.measure import peak_step_bytes, reset_peak_memory, resident_bytes, step_seconds

__all__ = [
    "RESOURCES",
    "Cost",
    "CostTable",
    "OutputBytes",
    "Resource",
    "Terms",
    "peak_step_bytes",
    "reset_peak_memory",
    "resident_bytes",
    "step_seconds",
]
