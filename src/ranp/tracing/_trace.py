"""One traced forward pass, from a model to its ChannelGraph."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from ranp._calling import tensors_in
from ranp.errors import RanpError, TraceError
from ranp.graph import ChannelGraph, Ints
from ranp.tracing._build import Prediction, Predictions, build
from ranp.tracing._records import Note, Pass
from ranp.tracing._rules import RULES, unknown
from ranp.tracing._running import Observer, Stage, explain, on_meta, with_fake_tensors
from ranp.tracing._tracer import Tracer

# Whether to train: heads for deep supervision, auxiliary classifiers and the like may run in training mode alone.
_EVAL, _BOTH = (False,), (False, True)


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
        predictions: What every operator returns, as functions of the widths: in eval mode and, where that runs other
            operators, in training mode.
        splits: For each view that splits channels into blocks, the groups that it splits.
    """

    stage: Stage
    graph: ChannelGraph
    predictions: Predictions
    splits: tuple[frozenset[int], ...]
    _tracer: Tracer = field(repr=False)

    def freeze(self, weights: Mapping[str, Note]) -> "Traced":
        """The same with the output channels of some weights kept whole, each for a reason."""
        calls = [call for call in self._tracer.passes[0].layers if call.weight in weights and call.out is not None]
        self._tracer.freezes += [(call.out, weights[call.weight]) for call in calls if call.out is not None]
        return _understand(self.stage, self._tracer)

    def failure(self, model: nn.Module, widths: Ints) -> Failure | None:
        """Run a pruned copy of the stage's model and compare all shapes with what the labels predict."""
        sizes = self.graph.costs.axes_at(widths)
        before = 0
        for training, predictions in enumerate(self.predictions):
            check = _Check(predictions, sizes)
            try:
                self.stage.run(model, check, training=bool(training))
            except _MismatchError as mismatch:
                return Failure(before + check.position, mismatch.note)
            except Exception as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                mode = " in training mode" if training else ""
                note = Note(check.path[-1], "forward", f"fails with fewer channels{mode} ({first[:120]})")
                return Failure(before + check.position, note)
            before += len(predictions)
        return None

    def latest(self, position: int) -> list[int]:
        """Groups in what operators up to that number return, those met last first."""
        forms = self.graph.costs.axes[:, :-1]
        found: dict[int, None] = {}
        for prediction in reversed([*chain(*self.predictions)][: position + 1]):
            axes = {axis for shape in prediction.shapes for _, axis in shape}
            for axis in sorted(axes):
                found.update(dict.fromkeys(np.flatnonzero(forms[axis]).tolist()))
        return list(found)


class _MismatchError(Exception):
    """Stops a run whose shapes are not those predicted."""

    def __init__(self, note: Note) -> None:
        super().__init__(note.reason)
        self.note = note


class _Check(Observer):
    """Compares what operators return with the predictions."""

    def __init__(self, predictions: Sequence[Prediction], sizes: Ints) -> None:
        super().__init__()
        self.predictions, self.sizes = predictions, sizes
        self.position = 0
        self.comparable = True

    def observe(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Stop at the first shape that is another."""
        if self.comparable and self.position < len(self.predictions):
            self._compare(func.overloadpacket.__name__, out)
        self.position += 1

    def _compare(self, operator: str, out: Any) -> None:
        prediction = self.predictions[self.position]
        if operator != prediction.operator:
            # Another path through torch itself (it may choose one by size): nothing to compare any more.
            self.comparable = False
            return
        shapes, expected = [tuple(tensor.shape) for tensor in tensors_in(out)], prediction.at(self.sizes)
        if shapes != expected:
            reason = f"returns {shapes} instead of {expected} with fewer channels"
            raise _MismatchError(Note(prediction.path, operator, reason))


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
    # What cannot be traced in training mode at all (layers dropped at random, say) is pruned by what eval mode tells.
    for make, modes in ((on_meta, _BOTH), (with_fake_tensors, _BOTH), (with_fake_tensors, _EVAL)):
        if make is on_meta and len(_devices(model, example_inputs)) > 1:
            continue  # only fake tensors tell whether that works
        try:
            return _observe(make(model, example_inputs), whole_blocks, modes)
        except TraceError as error:
            failure = error
    raise failure


def _devices(model: nn.Module, example_inputs: Any) -> set[torch.device]:
    return {tensor.device for tensor in (*model.parameters(), *model.buffers(), *tensors_in(example_inputs))}


def _observe(stage: Stage, whole_blocks: Collection[int], modes: Sequence[bool]) -> Traced:
    tracer = Tracer(stage.model, RULES, unknown, whole_blocks)
    for training in modes:
        _observe_pass(stage, tracer, training=training)
    if tracer.passes[0].same_path(tracer.passes[-1]):
        del tracer.passes[1:]
    return _understand(stage, tracer)


def _observe_pass(stage: Stage, tracer: Tracer, *, training: bool) -> None:
    tracer.path, tracer.module = [""], []
    tracer.passes.append(Pass())
    try:
        outputs = stage.run(stage.model, tracer, training=training)
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


def _understand(stage: Stage, tracer: Tracer) -> Traced:
    return Traced(stage, *build(stage.model, tracer), tracer)
