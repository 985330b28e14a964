"""What a network costs: exact formulas of its widths, and the resources that a budget can limit."""

from ranp.costs.formulas import Cost, CostModel, CostTable, OutputBytes, Terms
from ranp.costs.resources import RESOURCES, Resource

__all__ = ["RESOURCES", "Cost", "CostModel", "CostTable", "OutputBytes", "Resource", "Terms"]
