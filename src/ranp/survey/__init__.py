"""What pruning decided and what it could have decided, as plain data for a page or a notebook."""

from ranp.survey._file import FORMAT_VERSION, NAME, mismatch, read_survey, write_survey
from ranp.survey._survey import survey
from ranp.survey._time import timed

__all__ = ["FORMAT_VERSION", "NAME", "mismatch", "read_survey", "survey", "timed", "write_survey"]
