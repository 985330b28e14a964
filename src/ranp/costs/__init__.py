"""What a network costs: exact formulas of its widths, and measured step times and memory."""

from typing import TYPE_CHECKING

from ranp.costs.formulas import RESOURCES, Cost, CostTable, OutputBytes, Resource, Terms

if TYPE_CHECKING:
    from ranp.costs.measure import peak_step_bytes, reset_peak_memory, resident_bytes, step_seconds
else:
    # Measuring needs torch, formulas do not: budgets and criteria are read without it.
    def __getattr__(name: str):
        from importlib import import_module

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.measure"), name)


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
