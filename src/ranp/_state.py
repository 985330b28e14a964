"""Leaving a caller's model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_TABLES = ("_parameters", "_buffers", "_modules")


@contextmanager
def attributes_restored(model: nn.Module) -> Iterator[None]:
    """Undo, at the end, whatever is assigned to attributes, parameters or buffers of any module inside.

    Training modes are attributes too. Tensors that are changed in place stay changed.
    """
    saved = [
        (module, dict(module.__dict__), {name: dict(module.__dict__[name]) for name in _TABLES})
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, attributes, tables in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for name, entries in tables.items():
                module.__dict__[name].clear()
                module.__dict__[name].update(entries)
