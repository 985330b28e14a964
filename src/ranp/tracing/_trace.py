"""From a model to its ChannelGraph: run it without values, then follow the channels through what ran."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from ranp.errors import RanpError, TraceError, first_line
from ranp.graph import ChannelGraph, Ints
from ranp.module_utils import all_tensors, tensors_in
from ranp.tracing._build import Prediction, Predictions, build, build_with_predictions
from ranp.tracing._check import Check
from ranp.tracing._mode import alike, askers
from ranp.tracing._records import Note, Output, Recording
from ranp.tracing._rules import RULES, unknown
from ranp.tracing._running import Recorder, Stage, explain, on_meta, with_fake_tensors
from ranp.tracing._tracer import Tracer


@dataclass(frozen=True)
class Failure:
    """Where a pruned model does something else than the labels predict.

    Attributes:
        position: Number of the operator, counted as they run.
        note: Its place and what goes wrong.
        groups: The groups that what the operator returns depends on; empty where the forward fails between operators.
        ends: Whether the forward fails there, so that what comes after has not been seen.
    """

    position: int
    note: Note
    groups: frozenset[int]
    ends: bool


@dataclass(frozen=True)
class Traced:
    """What recorded forward passes told.

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

    @property
    def operators(self) -> Sequence[Output]:
        """All operators of the pass in eval mode, in order."""
        return self._tracer.passes[0].outputs

    def freeze(self, weights: Mapping[str, Note]) -> ChannelGraph:
        """The channels once the output channels of some weights are kept whole, each for a reason."""
        calls = [call for call in self._tracer.passes[0].layers if call.weight in weights and call.out is not None]
        self._tracer.freezes += [(call.out, weights[call.weight]) for call in calls if call.out is not None]
        return build(self.stage, self._tracer)

    def failures(self, widths: Ints) -> tuple[Failure, ...]:
        """Run the stage's model, narrowed, and compare all shapes with what the labels predict.

        Where an operator fails or returns something else, the run goes on with what was predicted, so that one run
        finds many failures. It ends where the forward itself fails.
        """
        sizes = self.graph.costs.axes_at(widths)
        before = 0
        for training, predictions in enumerate(self.predictions):
            check = Check(predictions, sizes)
            try:
                self.stage.run(check, training=bool(training))
            except Exception as error:
                mode = " in training mode" if training else ""
                check.fail(None, f"fails with fewer channels{mode} ({first_line(error)[:120]})")
            if check.failures:
                return tuple(
                    Failure(before + position, note, self._groups(operator), ends=operator is None)
                    for position, operator, note in check.failures
                )
            before += len(predictions)
        return ()

    def latest(self, position: int) -> list[int]:
        """Groups in what operators up to that number return, those met last first."""
        found: dict[int, None] = {}
        for prediction in reversed([*chain(*self.predictions)][: position + 1]):
            found.update(dict.fromkeys(sorted(self._groups(prediction))))
        return list(found)

    def _groups(self, prediction: Prediction | None) -> frozenset[int]:
        """Groups that what an operator returns depends on; none where there is no operator."""
        axes = {axis for shape in prediction.shapes for _, axis in shape} if prediction else ()
        return frozenset[int]().union(*(self._groups_of_axes[axis] for axis in axes))

    @cached_property
    def _groups_of_axes(self) -> list[frozenset[int]]:
        """Groups that the size of each axis depends on."""
        return [frozenset(np.flatnonzero(row[:-1]).tolist()) for row in self.graph.costs.axes]


@dataclass(frozen=True)
class Recorded:
    """A model that has been run without values.

    Attributes:
        stage: The model without values, and how it is run.
        passes: One in eval mode and, where that does something else, one in training mode.
        missed: Why training mode could not be run; empty if it could.
    """

    stage: Stage
    passes: tuple[Recording, ...]
    missed: str = ""


def record(model: nn.Module, example_inputs: Any) -> Recorded:
    """Run a model without values, in eval mode and, unless its forward does not mind, in training mode.

    Heads for deep supervision, auxiliary classifiers and the like may run in training mode alone. Where training mode
    cannot be run at all (layers are dropped at random, say), eval mode has to do.

    Args:
        model: Any module; a copy of it without values is run.
        example_inputs: A tensor, a tuple (positional arguments) or a dict (keyword arguments).

    Raises:
        TraceError: The forward cannot be run on the example inputs.
    """
    missed = ""
    for make, both in ((on_meta, True), (with_fake_tensors, True), (with_fake_tensors, False)):
        if make is on_meta and len(_devices(model, example_inputs)) > 1:
            continue  # only fake tensors tell whether that works
        try:
            stage = make(model, example_inputs)
            recorder = Recorder()
            with askers(recorder) as asking:
                passes = [_run(stage, recorder)]
            if both and not alike(stage, asking):
                passes.append(_run(stage, Recorder(), training=True))
        except TraceError as error:
            failure, missed = error, str(error)
            continue
        if len(passes) > 1 and passes[0].does_as(passes[1]):
            passes.pop()
        return Recorded(stage, tuple(passes), "" if both else missed)
    raise failure


def _devices(model: nn.Module, example_inputs: Any) -> set[torch.device]:
    return {tensor.device for tensor in (*all_tensors(model).values(), *tensors_in(example_inputs))}


def _run(stage: Stage, recorder: Recorder, *, training: bool = False) -> Recording:
    try:
        outputs = stage.run(recorder, training=training)
    except RanpError:
        raise
    except Exception as error:
        raise explain(error, recorder.path) from error
    tensors = tensors_in(outputs)
    if not tensors:
        raise TraceError(
            "output of the model",
            got=type(outputs).__name__,
            expected="tensors, or lists, tuples, dicts or dataclasses of them",
        )
    return Recording(tensors_in(stage.inputs), recorder.calls, tensors)


def understand(recorded: Recorded, whole_blocks: Collection[int] = ()) -> Traced:
    """Follow the channels through all operators of recorded passes.

    Args:
        recorded: The passes.
        whole_blocks: Numbers of the views that split channels into blocks of a fixed size (rather than into a fixed
            number of blocks).
    """
    filled: set[int] = set()
    while True:
        tracer = Tracer(recorded.stage.tensors, RULES, unknown, whole_blocks, filled)
        for recording in recorded.passes:
            tracer.follow(recording)
        if tracer.to_fill <= filled:
            return Traced(recorded.stage, *build_with_predictions(recorded.stage, tracer), tracer)
        filled |= tracer.to_fill
