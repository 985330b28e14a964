"""How a network of this folder is described."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A module whose forward is a function of (modules, inputs)."""

    def __init__(self, run: Callable[..., Any], **modules: Any) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


@dataclass(frozen=True)
class Case:
    """A network, inputs for it, the groups that tracing has to find, and what must be unprunable.

    `unprunable` maps an operator to words of the reason; the model's outputs always are and are not listed. `products`
    are the multiply-adds of products of activations, which belong to no layer.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    groups: Mapping[str, int]
    unprunable: Mapping[str, str] = field(default_factory=dict)
    products: int = 0


CASES: dict[str, Case] = {}
Make = Callable[[], nn.Module]


def image(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(7))


SQUARE = image(2, 3, 7, 7)


def case(
    inputs: Callable[[], Any] = SQUARE,
    unprunable: Mapping[str, str] | None = None,
    *,
    products: int = 0,
    **groups: int,
) -> Callable[[Make], Make]:
    """Register a network; `groups` are its groups' widths, `__` in a name standing for a dot and `_2` for #2."""

    def register(build: Make) -> Make:
        named = {name.replace("__", ".").replace("_2", "#2"): width for name, width in groups.items()}
        CASES[build.__name__] = Case(build, inputs, named, unprunable or {}, products)
        return build

    return register
