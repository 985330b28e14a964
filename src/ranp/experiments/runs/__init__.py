"""Runs: prune once, train, evaluate, compare; each in a folder that survives being stopped at any moment."""
