"""Training mode: which modules do the same to channels in both modes, and which forwards read the mode."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

# Modules that run the same operators on channels in training and in eval mode.
MODE_INVARIANT = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


def set_mode(modules: Iterable[nn.Module], training: bool) -> None:
    """Put modules into a mode, except that those which are mode-invariant stay in eval mode."""
    for module in modules:
        module.training = training and not isinstance(module, MODE_INVARIANT)


def watch_reads(modules: Iterable[nn.Module], read: Callable[[], None], unobservable: Callable[[], None]) -> None:
    """Have `read` called whenever `training` of a module that is not mode-invariant is read.

    Where a class looks the mode up in its own way, `unobservable` is called at once. This changes the attributes of the
    modules, until `preserve_state` restores them.
    """
    for module in modules:
        if isinstance(module, MODE_INVARIANT):
            continue
        attributes = vars(module)
        if "training" not in attributes or hasattr(type(module), "training"):
            unobservable()
        else:
            attributes["_buffers"] = _WatchedBuffers(attributes["_buffers"], attributes.pop("training"), read)


class _WatchedBuffers(dict[str, Any]):
    """The buffers of one module, among which `Module.__getattr__` also finds `training`.

    An attribute of the instance cannot be observed without changing its class, which forwards may compare. So
    `training` is removed from the instance; then Python calls `__getattr__`, and torch looks for it here.
    """

    def __init__(self, buffers: dict[str, Any], training: bool, read: Callable[[], None]) -> None:
        super().__init__(buffers)
        self._training, self._read = training, read

    def __contains__(self, name: object) -> bool:
        if name != "training":
            return super().__contains__(name)
        self._read()
        # To `Module.__setattr__` it must not look like a buffer: an assignment makes it an ordinary attribute again.
        return sys._getframe(1).f_code is nn.Module.__getattr__.__code__

    def __missing__(self, name: str) -> Any:
        if name == "training":
            return self._training
        raise KeyError(name)
