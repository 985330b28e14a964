"""What a network costs: exact formulas of its widths; measured step times and memory are in `ranp.costs.measure`."""

from ranp.costs.formulas import RESOURCES, Cost, CostTable, OutputBytes, Resource, Terms

__all__ = ["RESOURCES", "Cost", "CostTable", "OutputBytes", "Resource", "Terms"]
