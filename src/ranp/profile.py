"""What every module of a network costs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from ranp.costs import Cost
from ranp.tracing import record, refuse_unready, understand


@dataclass(frozen=True)
class ModuleCost:
    """What one module costs by itself, without the modules in it; see `Cost`.

    Attributes:
        name: Its path; empty for the model itself.
        kind: Its class.
        params: Elements of its own parameters; a shared one counts where it first appears.
        macs: Multiply-adds of the operators that run in its own forward.
        activation_bytes: Bytes that these operators allocate.
    """

    name: str
    kind: str
    params: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Profile:
    """The cost of a network, module by module.

    Attributes:
        modules: All modules that cost anything, in the order in which they first run; then those that never run.
        total: Of the whole network, which is the sum over its modules.
    """

    modules: tuple[ModuleCost, ...]
    total: Cost


def profile(model: nn.Module, example_inputs: Any) -> Profile:
    """Count what every module of a network costs in one forward pass, without computing it.

    Args:
        model: Any network; it is not changed.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        TraceError: The forward cannot be run on the example inputs.

    Example:
        >>> import torch
        >>> found = profile(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), torch.zeros(1, 3, 6, 6))
        >>> [(module.name, module.params, module.macs, module.activation_bytes) for module in found.modules]
        [('0', 224, 3456, 512), ('1', 18, 256, 128)]
    """
    refuse_unready(model)
    traced = understand(record(model, example_inputs))
    params, macs, activation_bytes = Counter[str](), Counter[str](), Counter[str]()
    for name, parameter in model.named_parameters():
        params[name.rpartition(".")[0]] += parameter.numel()
    for operator in traced.operators:
        macs[operator.path] += operator.macs
    costs = traced.graph.costs
    sizes = costs.axes_at(traced.graph.widths)
    for entry in costs.outputs:
        activation_bytes[entry.path] += entry.factor * int(sizes[list(entry.axes)].prod())
    modules = dict(model.named_modules())

    def rows() -> Iterator[ModuleCost]:
        for name in dict.fromkeys((*macs, *activation_bytes, *params)):
            if params[name] or macs[name] or activation_bytes[name]:
                kind = type(modules[name]).__name__
                yield ModuleCost(name, kind, params[name], macs[name], activation_bytes[name])

    return Profile(tuple(rows()), traced.graph.cost())
