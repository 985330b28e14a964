"""`ranp demo`: prune a 3D U-Net before training, on a real MRI, and race it against the full one."""

from ranp.demo._command import demo
from ranp.demo._pipeline import run
from ranp.demo._settings import DEFAULT, QUICK, Settings

__all__ = ["DEFAULT", "QUICK", "Settings", "demo", "run"]
