"""What every module of a network costs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ranp.arguments import checked
from ranp.costs import Cost
from ranp.module_utils import Inputs
from ranp.tracing import operators


@dataclass(frozen=True)
class ModuleCost:
    """What one module costs by itself, without the modules in it; see `Cost`.

    Attributes:
        name: Its path; empty for the model itself.
        kind: Its class.
        params: Elements of its own parameters; one that is shared counts where it is met first.
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
    """What a network costs.

    Attributes:
        modules: All modules that cost anything, in the order in which they first run; those that never run last.
        total: Of the whole network, which is the sum over its modules.
    """

    modules: tuple[ModuleCost, ...]
    total: Cost


@checked
def profile(model: nn.Module, example_inputs: Inputs) -> Profile:
    """Count what every module of a network costs in one forward pass, without computing it.

    Args:
        model: Any network; it is left as it is.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        TraceError: The forward cannot be run on the example inputs.

    Example:
        >>> import torch
        >>> found = profile(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), torch.zeros(1, 3, 6, 6))
        >>> [(module.name, module.params, module.macs, module.activation_bytes) for module in found.modules]
        [('0', 224, 3456, 512), ('1', 18, 256, 128)]
    """
    found, total = operators(model, example_inputs)
    params, macs, activation_bytes = Counter[str](), Counter[str](), Counter[str]()
    for name, parameter in model.named_parameters():
        params[name.rpartition(".")[0]] += parameter.numel()
    for operator in found:
        macs[operator.path] += operator.macs
        activation_bytes[operator.path] += operator.activation_bytes
    modules = dict(model.named_modules())

    def rows() -> Iterator[ModuleCost]:
        for name in dict.fromkeys((*macs, *activation_bytes, *params)):
            if params[name] or macs[name] or activation_bytes[name]:
                kind = type(modules[name]).__name__
                yield ModuleCost(name, kind, params[name], macs[name], activation_bytes[name])

    return Profile(tuple(rows()), total)
