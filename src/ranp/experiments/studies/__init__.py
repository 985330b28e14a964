"""Studies: the published claims and a comparison of methods, each as runs, tables, pictures and a page."""

from ranp.experiments.studies._studies import STUDIES
from ranp.experiments.studies._study import Setting, Study, Task, Variant

__all__ = ["STUDIES", "Setting", "Study", "Task", "Variant"]
