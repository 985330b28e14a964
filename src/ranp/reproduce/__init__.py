"""The source paper's tables, computed anew and put beside the published figures."""

from ranp.reproduce._networks import NETWORKS
from ranp.reproduce._report import NOTE, tables
from ranp.reproduce._resources import Row, run_resources

__all__ = ["NETWORKS", "NOTE", "Row", "run_resources", "tables"]
