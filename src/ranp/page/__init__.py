"""The report: one self-contained HTML file about a pruned network, or about a run; see `ranp.page._write`."""

from ranp.page._write import write_page

__all__ = ["write_page"]
