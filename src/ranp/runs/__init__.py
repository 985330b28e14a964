"""Runs: prune once, train, evaluate, compare; each in a folder that survives being stopped at any moment."""

from ranp.runs._commands import compare, data, evaluate, train

__all__ = ["compare", "data", "evaluate", "train"]
