"""Runs: prune once, train, evaluate, compare; each in a folder from which it can be resumed at any time.

Lightning is imported when a run begins, pydantic and yaml when a recipe is read.
"""

from ranp.experiments.runs._evaluate import evaluate_run, validate
from ranp.experiments.runs._folder import RunFolder, check_same_recipe, lock_run_dir
from ranp.experiments.runs._machine import fabric_precision, make_fabric, translate_errors
from ranp.experiments.runs._networks import best_model, full_network
from ranp.experiments.runs._results import read_run_summary, read_runs, runs_table
from ranp.experiments.runs._train import finish_run, open_run, prune_recipe, run_recipe
from ranp.experiments.runs.loop import Run, fit, make_optimizer, to_channels_last

__all__ = [
    "Run",
    "RunFolder",
    "best_model",
    "check_same_recipe",
    "evaluate_run",
    "fabric_precision",
    "finish_run",
    "fit",
    "full_network",
    "lock_run_dir",
    "make_fabric",
    "make_optimizer",
    "open_run",
    "prune_recipe",
    "read_run_summary",
    "read_runs",
    "run_recipe",
    "runs_table",
    "to_channels_last",
    "translate_errors",
    "validate",
]
