"""One traced forward pass, from a model to its ChannelGraph."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from ranp._calling import tensors_in
from ranp.errors import RanpError, TraceError
from ranp.graph import ChannelGraph, Ints
from ranp.tracing._build import Prediction, build
from ranp.tracing._records import Note
from ranp.tracing._rules import RULES, unknown
from ranp.tracing._running import Observer, Stage, explain, on_meta, with_fake_tensors
from ranp.tracing._tracer import Tracer


@dataclass(frozen=True)
class Failure:
    """Where a pruned model does something else than the labels predict.

    Attributes:
        position: Number of the operator, counted as they run.
        note: Its place and what goes wrong.
    """

    position: int
    note: Note


@dataclass(frozen=True)
class Traced:
    """What one traced forward pass told.

    Attributes:
        stage: The model without values, and how it is run.
        graph: The channels.
        predictions: What every operator returns, as functions of the widths.
        splits: For each view that splits channels into blocks, the groups that it splits.
    """

    stage: Stage
    graph: ChannelGraph
    predictions: tuple[Prediction, ...]
    splits: tuple[frozenset[int], ...]
    _tracer: Tracer = field(repr=False)

    def freeze(self, weights: Mapping[str, Note]) -> "Traced":
        """The same with the output channels of some weights kept whole, each for a reason."""
        calls = [call for call in self._tracer.layers if call.weight in weights and call.out is not None]
        self._tracer.freezes += [(call.out, weights[call.weight]) for call in calls if call.out is not None]
        return _understand(self.stage, self._tracer)

    def failure(self, model: nn.Module, widths: Ints) -> Failure | None:
        """Run a pruned copy of the stage's model and compare all shapes with what the labels predict."""
        check = _Check(self.predictions, self.graph.costs.axes_at(widths))
        try:
            self.stage.run(model, check)
        except _MismatchError:
            assert check.failure is not None
            return check.failure
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            note = Note(check.path[-1], "forward", f"fails with fewer channels ({first[:120]})")
            return Failure(check.position, note)
        return None

    def latest(self, position: int) -> list[int]:
        """Groups in what operators up to that number return, those met last first."""
        forms = self.graph.costs.axes[:, :-1]
        found: dict[int, None] = {}
        for prediction in reversed(self.predictions[: position + 1]):
            axes = {axis for shape in prediction.shapes for _, axis in shape}
            for axis in sorted(axes):
                found.update(dict.fromkeys(np.flatnonzero(forms[axis]).tolist()))
        return list(found)


class _MismatchError(Exception):
    """Stops a run whose shapes are not those predicted."""


class _Check(Observer):
    """Compares what operators return with the predictions."""

    def __init__(self, predictions: Sequence[Prediction], sizes: Ints) -> None:
        super().__init__()
        self.predictions, self.sizes = predictions, sizes
        self.position = 0
        self.failure: Failure | None = None
        self.comparable = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace != "prim":
            self._compare(func.overloadpacket.__name__, out)
            self.position += 1
        return out

    def _compare(self, operator: str, out: Any) -> None:
        if not self.comparable or self.position >= len(self.predictions):
            return
        prediction = self.predictions[self.position]
        if operator != prediction.operator:
            # Another path through torch itself (it may choose one by size): nothing to compare any more.
            self.comparable = False
            return
        shapes, expected = [tuple(tensor.shape) for tensor in tensors_in(out)], prediction.at(self.sizes)
        if shapes != expected:
            reason = f"returns {shapes} instead of {expected} with fewer channels"
            self.failure = Failure(self.position, Note(prediction.path, operator, reason))
            raise _MismatchError


def trace_once(model: nn.Module, example_inputs: Any, whole_blocks: Collection[int] = ()) -> Traced:
    """Trace a model on example inputs.

    Args:
        model: Any module; a copy of it without values is run in eval mode.
        example_inputs: A tensor, a tuple (positional arguments) or a dict (keyword arguments).
        whole_blocks: Numbers of the views that split channels into blocks of a fixed size (rather than into a fixed
            number of blocks).

    Raises:
        TraceError: The forward cannot be run on the example inputs.
    """
    try:
        return _observe(on_meta(model, example_inputs), whole_blocks)
    except TraceError:
        return _observe(with_fake_tensors(model, example_inputs), whole_blocks)


def _observe(stage: Stage, whole_blocks: Collection[int]) -> Traced:
    tracer = Tracer(stage.model, RULES, unknown, whole_blocks)
    try:
        outputs = stage.run(stage.model, tracer)
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
    for tensor in tensors:
        for labels in tracer.labels(tensor):
            tracer.freeze(labels, "is an output of the model")
            tracer.outermost.append(labels.reshape(-1))
    return _understand(stage, tracer)


def _understand(stage: Stage, tracer: Tracer) -> Traced:
    return Traced(stage, *build(stage.model, tracer), tracer)
