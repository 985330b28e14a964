"""The source paper's tables, computed anew and put beside the published figures."""

from ranp.reproduce._command import resources
from ranp.reproduce._resources import Row, run_resources

__all__ = ["Row", "resources", "run_resources"]
