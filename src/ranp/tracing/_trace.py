"""The public functions: from a model to its channels, its operators, or the shapes of its outputs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ranp.arguments import checked
from ranp.costs import Cost
from ranp.errors import InputError, TraceError
from ranp.graph import ChannelGraph
from ranp.module_utils import Inputs, all_modules
from ranp.tracing._build import build
from ranp.tracing._capture import capture
from ranp.tracing._propagate import Rule, propagate
from ranp.tracing._validate import validated
from ranp.tracing.rules import rule_finder


@checked
def trace(model: nn.Module, example_inputs: Inputs, *, rules: Mapping[str, Rule] | None = None) -> ChannelGraph:
    """Find the channels of a model, which of them depend on each other, and what they cost.

    A copy of the model runs whose tensors have shapes but no values, so nothing is computed and no activation is
    allocated: once in eval mode, which determines the costs, and, if its forward reads the mode, once in training mode,
    for heads and branches that run there only. Then the copy runs at reduced widths: where its forward relies on a
    number of channels (in a reshape, for example), the channels concerned are unprunable.

    Args:
        model: Any module; it is not changed, and neither is any state that other threads could observe.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).
        rules: Rules for operators by namespace and name, such as `{"mylib::scale": rule}`; they take precedence over
            `ranp.tracing.RULES`. For elementwise operators, use `ranp.tracing.pointwise`.

    Raises:
        TraceError: The forward cannot be run on the example inputs.
        InputError: A rule has a name without a namespace.

    Example:
        >>> import torch
        >>> graph = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)), torch.zeros(1, 3, 16, 16))
        >>> [(group.name, group.width) for group in graph.groups]
        [('0', 8)]
        >>> graph.cost([4]).macs
        22736
    """
    for name in rules or ():
        if "::" not in name:
            raise InputError("rules", got=repr(name), expected="an operator with its namespace, such as 'mylib::scale'")
    _require_eager(model)
    return validated(capture(model, example_inputs), rule_finder(rules))


@dataclass(frozen=True)
class Operator:
    """One operator of a forward pass in eval mode.

    Attributes:
        path: Module in whose forward it ran; empty for the model itself.
        name: Its name.
        macs: Its multiply-adds.
        activation_bytes: Bytes that it allocated for its outputs.
    """

    path: str
    name: str
    macs: int
    activation_bytes: int


@checked
def operators(model: nn.Module, example_inputs: Inputs) -> tuple[tuple[Operator, ...], Cost]:
    """All operators of a forward pass in eval mode, in order, and the cost of the whole model.

    Args:
        model: Any module; it is not changed.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        TraceError: The forward cannot be run on the example inputs.

    Example:
        >>> import torch
        >>> found, cost = operators(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 5, 5))
        >>> [(operator.path, operator.name, operator.macs) for operator in found], cost.params
        ([('0', 'convolution', 1944), ('1', 'relu', 0)], 224)
    """
    _require_eager(model)
    captured = capture(model, example_inputs)
    tracer = propagate(captured, rule_finder())
    found = tuple(Operator(op.path, op.name, op.macs, op.activation_bytes) for op in tracer.passes[0].operators)
    return found, build(captured.meta_model, tracer, predict=False).graph.cost()


@checked
def output_shapes(model: nn.Module, example_inputs: Inputs) -> list[tuple[int, ...]]:
    """Shapes of the tensors that a model returns in eval mode, without computing them.

    Args:
        model: Any module; it is not changed.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        TraceError: The forward cannot be run on the example inputs.

    Example:
        >>> import torch
        >>> output_shapes(nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 5, 5))
        [(1, 8, 3, 3)]
    """
    _require_eager(model)
    return [tuple(tensor.shape) for tensor in capture(model, example_inputs).passes[0].outputs]


def _require_eager(model: nn.Module) -> None:
    """Refuse anything but an eager module whose parameters have shapes."""
    for path, module in all_modules(model).items():
        if isinstance(module, torch.jit.ScriptModule):
            hint = "prune the module before scripting or exporting it"
            raise TraceError(path or "model", got=type(module).__name__, expected="an eager nn.Module", hint=hint)
        held = (*module._parameters.values(), *module._buffers.values())
        if any(tensor is not None and is_lazy(tensor) for tensor in held):
            problem = f"is a {type(module).__name__}, whose parameters have no shape yet"
            raise TraceError(path or "model", problem, hint="run the model on one batch first")
