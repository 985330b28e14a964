"""ranp: resource-aware neuron pruning at initialization.

Score every neuron of a convolutional network by its effect on the loss and by what it costs, prune once before
training, and get back a smaller dense network that trains as usual.
"""

from typing import TYPE_CHECKING

from ranp.deprecation import find_old_modules

__version__ = "0.2.0"

__all__ = [
    "Budget",
    "Plan",
    "PruneResult",
    "RanpError",
    "TrainingSetup",
    "__version__",
    "allocate",
    "apply",
    "bench",
    "fit",
    "load",
    "measure_times",
    "prune",
    "save",
    "score",
    "trace",
    "verify",
]

if TYPE_CHECKING:
    from ranp.allocation import allocate
    from ranp.benchmark import bench
    from ranp.budget import Budget
    from ranp.costs.training import TrainingSetup
    from ranp.errors import RanpError
    from ranp.fitting import fit
    from ranp.plan import Plan
    from ranp.pruning import PruneResult, prune
    from ranp.scoring import score
    from ranp.storage import load, save
    from ranp.surgery import apply, verify
    from ranp.timing import measure_times
    from ranp.tracing import trace
else:
    # Found when they are first asked for: nearly all of them import torch, which takes longer than `ranp --help` may.
    _HOMES = {
        "Budget": "budget",
        "Plan": "plan",
        "PruneResult": "pruning",
        "RanpError": "errors",
        "TrainingSetup": "costs.training",
        "allocate": "allocation",
        "apply": "surgery",
        "bench": "benchmark",
        "fit": "fitting",
        "load": "storage",
        "measure_times": "timing",
        "prune": "pruning",
        "save": "storage",
        "score": "scoring",
        "trace": "tracing",
        "verify": "surgery",
    }

    def __getattr__(name: str):
        import random
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        state = random.getstate()
        try:
            found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        finally:
            random.setstate(state)  # rich, for one, draws a number when it is imported
        return found

    def __dir__() -> list[str]:
        return sorted(globals().keys() | _HOMES.keys())


find_old_modules()
