"""The HTML report of a pruned network, and the survey: the data that it draws."""

from ranp.explorer._content import NOT_METRICS, RunSummary
from ranp.explorer._report import write_report
from ranp.explorer._survey import survey, with_forward_seconds
from ranp.explorer._survey_file import read_survey, write_survey

__all__ = [
    "NOT_METRICS",
    "RunSummary",
    "read_survey",
    "survey",
    "with_forward_seconds",
    "write_report",
    "write_survey",
]
