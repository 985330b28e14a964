"""The source paper's tables, computed anew and put beside the published figures."""

from ranp.experiments.reproduce._networks import NETWORKS
from ranp.experiments.reproduce._report import NOTE, tables
from ranp.experiments.reproduce._resources import Row, run_resources

__all__ = ["NETWORKS", "NOTE", "Row", "run_resources", "tables"]
