"""The demo: prune a 3D U-Net before training, on a real MRI, and race it against the full one."""

from ranp.demo._pipeline import run
from ranp.demo._report import rows
from ranp.demo._settings import DEFAULT, QUICK, Settings
from ranp.demo._threads import quickest_threads

__all__ = ["DEFAULT", "QUICK", "Settings", "quickest_threads", "rows", "run"]
