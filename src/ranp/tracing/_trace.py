"""One traced forward pass, from a model to its ChannelGraph."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from ranp.errors import RanpError, TraceError
from ranp.graph import ChannelGraph
from ranp.tracing._build import build
from ranp.tracing._rules import RULES, unknown
from ranp.tracing._tracer import Tracer, explain, fake_run, tensors_in

Shapes: TypeAlias = list[tuple[int, ...]]


def trace_once(
    model: nn.Module, example_inputs: Any, also_freeze: Mapping[str, str] | None = None
) -> tuple[ChannelGraph, Shapes]:
    """Trace a model on example inputs; returns its graph and the shapes of its outputs.

    Args:
        model: Any module; it is run in eval mode under fake tensors and left as it was.
        example_inputs: A tensor, a tuple (positional arguments) or a dict (keyword arguments).
        also_freeze: Weights whose output channels are to stay whole, each with the reason.

    Raises:
        TraceError: The forward cannot be run on the example inputs.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            "model",
            got=type(model).__name__,
            expected="an eager nn.Module",
            hint="prune the module before scripting it",
        )
    tracer = Tracer(model, RULES, unknown)
    try:
        outputs = fake_run(model, example_inputs, tracer)
    except RanpError:
        raise
    except Exception as error:
        raise explain(error, tracer.path[-1][0]) from error
    tensors = list(tensors_in(outputs))
    if not tensors:
        raise TraceError(
            "output of the model",
            got=type(outputs).__name__,
            expected="tensors, or lists, tuples, dicts or dataclasses of them",
        )
    tracer.path, tracer.operator = [("", model)], "output"
    final: set[int] = set()
    for tensor in tensors:
        for labels in tracer.labels(tensor):
            tracer.freeze(labels, "is an output of the model")
            final |= set(labels.reshape(-1).tolist())
    _freeze_weights(tracer, also_freeze or {})
    return build(model, tracer, final), [tuple(tensor.shape) for tensor in tensors]


def _freeze_weights(tracer: Tracer, reasons: Mapping[str, str]) -> None:
    for call in tracer.layers:
        if call.weight in reasons and call.out is not None:
            tracer.operator = "forward"
            tracer.freeze(call.out, reasons[call.weight])


def run_fake(model: nn.Module, example_inputs: Any) -> Shapes:
    """Shapes of all outputs of a model that is run under fake tensors.

    Raises:
        Exception: Whatever the model's forward raises.
    """
    return [tuple(tensor.shape) for tensor in tensors_in(fake_run(model, example_inputs))]
