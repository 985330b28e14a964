"""What pruning decided and what it could have decided, as plain data for a page or a notebook."""

from ranp.survey._file import FORMAT_VERSION, NAME, read_survey, write_survey
from ranp.survey._survey import survey

__all__ = ["FORMAT_VERSION", "NAME", "read_survey", "survey", "write_survey"]
