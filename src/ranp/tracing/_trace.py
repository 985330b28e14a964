"""One traced forward pass, from a model to its ChannelGraph."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ranp._calling import tensors_in
from ranp.errors import RanpError, TraceError
from ranp.graph import ChannelGraph, Ints
from ranp.tracing._build import Prediction, build
from ranp.tracing._records import Note
from ranp.tracing._rules import RULES, unknown
from ranp.tracing._running import Shapes, explain, fake_run
from ranp.tracing._tracer import Tracer


@dataclass(frozen=True)
class Traced:
    """What one traced forward pass told.

    Attributes:
        graph: The channels.
        predictions: What every operator returns, as functions of the widths.
        splits: For each view that splits channels into blocks, the groups that it splits.
    """

    graph: ChannelGraph
    predictions: tuple[Prediction, ...]
    splits: tuple[frozenset[int], ...]

    def mismatch(self, model: nn.Module, example_inputs: Any, widths: Ints) -> Note | None:
        """Run a pruned model under fake tensors and compare all shapes with what the labels predict.

        Returns:
            Where and how the first difference shows, if any does.
        """
        observer = Shapes()
        try:
            fake_run(model, example_inputs, observer)
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return Note(observer.path[-1], "forward", f"fails with fewer channels ({first[:120]})")
        sizes = self.graph.costs.axes_at(widths)
        for prediction, (operator, shapes) in zip(self.predictions, observer.found, strict=False):
            if operator != prediction.operator:
                # Another path through torch itself (it may choose one by size): nothing to compare any more.
                break
            expected = prediction.at(sizes)
            if shapes != expected:
                reason = f"returns {shapes} instead of {expected} with fewer channels"
                return Note(prediction.path, operator, reason)
        return None


def trace_once(
    model: nn.Module,
    example_inputs: Any,
    also_freeze: Mapping[str, Note] | None = None,
    whole_blocks: Collection[int] = (),
) -> Traced:
    """Trace a model on example inputs.

    Args:
        model: Any module; it is run in eval mode under fake tensors and left as it was.
        example_inputs: A tensor, a tuple (positional arguments) or a dict (keyword arguments).
        also_freeze: Weights whose output channels are to stay whole, each with the reason.
        whole_blocks: Numbers of the views that split channels into blocks of a fixed size (rather than into a fixed
            number of blocks).

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
    tracer = Tracer(model, RULES, unknown, whole_blocks)
    try:
        outputs = fake_run(model, example_inputs, tracer)
    except RanpError:
        raise
    except Exception as error:
        raise explain(error, tracer.path[-1]) from error
    tensors = list(tensors_in(outputs))
    if not tensors:
        raise TraceError(
            "output of the model",
            got=type(outputs).__name__,
            expected="tensors, or lists, tuples, dicts or dataclasses of them",
        )
    tracer.path, tracer.operator = [""], "output"
    final: set[int] = set()
    for tensor in tensors:
        for labels in tracer.labels(tensor):
            tracer.freeze(labels, "is an output of the model")
            final |= set(labels.reshape(-1).tolist())
    for call in tracer.layers:
        if also_freeze and call.weight in also_freeze and call.out is not None:
            tracer.freezes.append((call.out, also_freeze[call.weight]))
    return Traced(*build(model, tracer, final))
