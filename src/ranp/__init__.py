"""ranp: resource-aware neuron pruning at initialisation.

Score every neuron of a convolutional network by its effect on the loss and by what it costs, prune once before
training, and get back a smaller dense network that trains as usual.
"""

from ranp._pipeline import PruneResult, prune
from ranp._probing import trace
from ranp._version import __version__
from ranp.allocation import allocate
from ranp.budget import Budget
from ranp.errors import RanpError
from ranp.plan import Plan
from ranp.scoring import score
from ranp.storage import load, save
from ranp.surgery import apply, verify

__all__ = [
    "Budget",
    "Plan",
    "PruneResult",
    "RanpError",
    "__version__",
    "allocate",
    "apply",
    "load",
    "prune",
    "save",
    "score",
    "trace",
    "verify",
]
