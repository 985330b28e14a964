"""The demo: prune a 3D U-Net before training, on a real MRI, and race it against the full one."""

from ranp.experiments.demo._pipeline import run
from ranp.experiments.demo._report import rows
from ranp.experiments.demo._settings import DEFAULT, QUICK, Settings
from ranp.experiments.demo._threads import quickest_threads

__all__ = ["DEFAULT", "QUICK", "Settings", "quickest_threads", "rows", "run"]
