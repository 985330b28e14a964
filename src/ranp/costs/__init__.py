"""What a network costs: exact formulas of the widths, and step times and memory as measured."""

from ranp.costs.formulas import Resource
from ranp.costs.measure import peak_step_bytes, step_seconds

__all__ = ["Resource", "peak_step_bytes", "step_seconds"]
