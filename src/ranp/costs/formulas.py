"""Resources that a budget may limit, as functions of the kept widths."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resource:
    """Something that a network uses and that a budget can limit.

    Attributes:
        name: What budgets call it.
        label: What reports call it.
        cost: From a `ChannelGraph` and the kept width of each of its groups, of shape (groups,), to an amount.
    """

    name: str
    label: str
    cost: Callable[[Any, Any], float]
