"""Runs: prune once, train, evaluate, compare; each in a folder that survives being stopped at any moment."""

from ranp.runs._compare import read_runs, table_of
from ranp.runs._evaluate import evaluate_run
from ranp.runs._train import run_recipe

__all__ = ["evaluate_run", "read_runs", "run_recipe", "table_of"]
