"""Learning whether a forward asks in which mode it runs: where it does not, both modes do the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

from torch import nn

# What runs the same operators on channels in both modes.
ALIKE = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)

_ONE_AT_A_TIME = RLock()


@contextmanager
def askers() -> Iterator[list[nn.Module]]:
    """Collect the modules that are asked for their mode inside, apart from dropout and norms.

    Every module keeps `training` as an attribute of its own, which a property of the class goes before. For that
    while modules of other threads are collected too, and work as ever.
    """
    found: list[nn.Module] = []

    def get(module: nn.Module) -> Any:
        if not isinstance(module, ALIKE):
            found.append(module)
        held = vars(module)
        return held["training"] if "training" in held else module.__getattr__("training")

    def put(module: nn.Module, value: Any) -> None:
        vars(module)["training"] = value

    with _ONE_AT_A_TIME:
        before = vars(nn.Module).get("training")
        nn.Module.training = property(get, put)  # type: ignore[assignment]
        try:
            yield found
        finally:
            if before is None:
                del nn.Module.training
            else:
                nn.Module.training = before
