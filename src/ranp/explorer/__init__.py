"""The HTML report, and the data that it draws."""

from ranp.explorer._survey import survey
from ranp.explorer._survey_file import FORMAT_VERSION, NAME, mismatch, read_survey, write_survey
from ranp.explorer._time import timed

__all__ = ["FORMAT_VERSION", "NAME", "mismatch", "read_survey", "survey", "timed", "write_survey"]
