"""The report: one self-contained HTML file about a pruned network, or about a run; see `ranp.page._write`."""

from ranp.page._command import report

__all__ = ["report"]
