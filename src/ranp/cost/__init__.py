"""Counting what a network costs: the published tables' convention. Exact formulas are methods of `ranp.graph`."""
