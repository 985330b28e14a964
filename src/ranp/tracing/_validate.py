"""Validating labels: the model runs at reduced widths, without values, and every shape is compared with its prediction.

A forward may rely on the number of channels (in a reshape, for example). The groups concerned are found by trying which
of them have to keep their width for the forward to work.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ranp.errors import TraceError, first_line
from ranp.graph import ChannelGraph, Ints
from ranp.module_utils import tensors_in
from ranp.surgery import resized
from ranp.tracing._build import Build, Prediction, build
from ranp.tracing._capture import Call, Capture, ModelCapture
from ranp.tracing._meta_model import Observer
from ranp.tracing._propagate import Note, Rule, Tracer, propagate
from ranp.tracing._steps import Step, StepLog, steps_of


def validated(capture: ModelCapture, find_rule: Callable[[Call], Rule]) -> ChannelGraph:
    """Propagate labels through captured passes, and return a graph that is right at all widths that were tried."""
    whole_blocks: set[int] = set()
    while True:
        tracer = propagate(capture, find_rule, whole_blocks)
        built = build(capture.meta_model, tracer)
        trial = Trial(capture, built)
        if not trial.repeatable:
            if capture.again:
                problem, hint = "runs other operators each time it is called", "remove what it remembers between calls"
                raise TraceError("forward of the model", problem, hint=hint)
            capture = capture.repeated()
            continue
        blocking = _all_blocking_groups(trial)
        # A view that cannot split channels into a fixed number of blocks may split them into blocks of a fixed size.
        doubtful = blocking.keys() | set(np.flatnonzero(built.graph.widths == 1).tolist())
        turned = {index for index, groups in enumerate(built.splits) if groups & doubtful} - whole_blocks
        if turned:
            whole_blocks |= turned
            continue
        if blocking:
            _block(tracer, built.graph, blocking)
            built = build(capture.meta_model, tracer, predict=False)
        return replace(built.graph, untraced_training_mode=capture.untraced_training_mode)


def _all_blocking_groups(trial: "Trial") -> dict[int, Note]:
    """All groups whose widths the forward relies on, each with what fails otherwise."""
    found: dict[int, Note] = {}
    differs = False
    groups = frozenset(range(len(trial.built.graph.groups)))
    for turn in (0, 1):
        attempt = partial(trial.violations, turn=turn)
        while groups and (violations := attempt(groups)):
            # Where the outputs of an operator should depend on one group alone, that group has to keep its width.
            differs |= any(entry.differs for entry in violations)
            shapes = [entry for entry in violations if not entry.differs]
            alone = {min(held): entry.note for entry in shapes if len(held := entry.groups & groups) == 1}
            found |= alone or blocking_groups(groups, violations, attempt, trial.latest)
            groups = groups.difference(found)
        if not differs:
            break  # A forward that does the same with few channels as with all does not look at their number.
    return found


def _block(tracer: Tracer, graph: ChannelGraph, blocking: Mapping[int, Note]) -> None:
    """Mark the channels of groups as unprunable."""
    group_of = np.append(graph.group_of, -1)  # the last for number -1: channels that are unprunable already
    channels = {layer.weight: layer.channels for layer in graph.layers}
    for call in tracer.passes[0].layers:
        groups = group_of[channels[call.weight]]
        for group in set(groups.tolist()) & blocking.keys():
            if call.out is not None:
                tracer.unprunable.append((call.out[groups == group], blocking[group]))


# -- trials ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Violation:
    """An operator of the resized model that is not the recorded one, or whose outputs are not as predicted."""

    position: int  # the operator's number, in the order in which they run
    note: Note
    groups: frozenset[int]  # those that its outputs depend on; empty where the forward fails between operators
    ends: bool  # whether what comes after was not compared
    differs: bool = False  # whether the operator or its arguments are not the recorded ones


class Trial:
    """Runs of a model at other widths."""

    def __init__(self, capture: ModelCapture, built: Build) -> None:
        self.meta_model, self.built = capture.meta_model, built
        self.passes = [(recorded, steps_of(recorded.calls)) for recorded in capture.passes]
        self.violations = cache(self._violations)
        self._groups_of_axes = [frozenset(np.flatnonzero(row[:-1]).tolist()) for row in built.graph.costs.axes]

    @property
    def repeatable(self) -> bool:
        """Whether the model does the same at the same widths, which is tried where there is reason to doubt it."""
        first = self.violations(frozenset(range(len(self.built.graph.groups))), turn=0)
        return not any(entry.differs for entry in first) or not self.violations(frozenset(), turn=0)

    def _violations(self, groups: frozenset[int], turn: int = 0) -> tuple[Violation, ...]:
        """Run the model with these groups resized, and compare all operators with those recorded and predicted.

        Where an operator fails or returns other shapes, the run continues with what was predicted, so that one run
        finds many violations. It ends where the forward itself fails or runs other operators.
        """
        graph = self.built.graph
        widths = _widths(graph, groups, turn)
        sizes = graph.costs.axes_at(widths)
        before = 0
        with resized(self.meta_model.modules, self.meta_model.tensors, graph, widths):
            for training, predictions in enumerate(self.built.predictions):
                comparison = _Comparison(predictions, *self.passes[training], sizes)
                try:
                    self.meta_model.run(comparison, training=bool(training))
                    comparison.end()
                except Exception as error:
                    mode = " in training mode" if training else ""
                    comparison.fail(None, f"fails with fewer channels{mode} ({first_line(error)[:120]})", ends=True)
                if comparison.failures:
                    return tuple(
                        Violation(
                            before + entry.position,
                            entry.note,
                            self._groups(entry.prediction),
                            entry.ends,
                            entry.differs,
                        )
                        for entry in comparison.failures
                    )
                before += len(predictions)
        return ()

    def latest(self, position: int) -> list[int]:
        """Groups in the outputs of operators up to that number, the latest first."""
        found: dict[int, None] = {}
        for prediction in reversed([*chain(*self.built.predictions)][: position + 1]):
            found.update(dict.fromkeys(sorted(self._groups(prediction))))
        return list(found)

    def _groups(self, prediction: Prediction | None) -> frozenset[int]:
        """Groups that an operator's outputs depend on."""
        axes = {axis for shape in prediction.shapes for _, axis in shape} if prediction else ()
        return frozenset[int]().union(*(self._groups_of_axes[axis] for axis in axes))


def _widths(graph: ChannelGraph, groups: Collection[int], turn: int) -> Ints:
    """Other widths for some groups, and the full width of the others.

    In the first turn that is two, three or five channels: a forward that branches on their number, or computes with it,
    does so most visibly with few. (With one, a tensor would be broadcast.) In the second turn it is three quarters.
    """
    widths = graph.widths.copy()
    for index in groups:
        other = -(-3 * widths[index] // 4) if turn else (2, 3, 5)[index % 3]
        widths[index] = max(1, min(widths[index] - 1, other))
    return widths


@dataclass(frozen=True)
class _Failure:
    """Where a comparison fails."""

    position: int
    prediction: Prediction | None  # None where the forward fails between operators
    note: Note
    ends: bool
    differs: bool


class _Comparison(Observer):
    """Compares operators with the recorded ones and with the predictions, and replaces outputs that differ."""

    def __init__(
        self, predictions: Sequence[Prediction], recorded: Capture, steps: Sequence[Step | None], sizes: Ints
    ) -> None:
        super().__init__()
        self.predictions, self.steps, self.sizes = predictions, steps, sizes.tolist()
        self.recorded = recorded
        self.log = StepLog()
        self.failures: list[_Failure] = []
        self.position = 0
        self.ended = False

    def fail(self, prediction: Prediction | None, reason: str, *, ends: bool = False, differs: bool = False) -> None:
        """Note that the current operator, or the forward before it, fails."""
        if not self.ended:
            operator = "forward" if prediction is None else prediction.operator
            note = Note(self.path, operator, reason)
            self.failures.append(_Failure(self.position, prediction, note, ends, differs))
            self.ended = ends

    def note_value(self, value: Any) -> None:
        """Compare a value of which a tensor is made."""
        place = len(self.values)
        super().note_value(value)
        if place < len(self.recorded.values) and not _equal(value, self.recorded.values[place]):
            self._skip()
            following = self.predictions[min(self.position, len(self.predictions) - 1)]
            self.fail(following, "takes a tensor made of a number of channels", differs=True)

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator; where it fails or returns other shapes, return what was predicted."""
        if self.ended:
            return super().operate(func, args, kwargs)
        step = self.log.step(func, self.path, args, kwargs)
        prediction = self._prediction(step) if step else None
        try:
            out = self._compared(prediction, func, args, kwargs) if prediction else super().operate(func, args, kwargs)
        finally:
            self.position += prediction is not None
        self.log.returned(func, step, args, [out] if isinstance(out, Tensor) else tensors_in(out))
        return out

    def _prediction(self, step: Step) -> Prediction | None:
        """The prediction for an operator; None once others run than those recorded, so that nothing can be compared."""
        self._skip()
        if self.position == len(self.steps):
            self.fail(
                self.predictions[-1], f"is followed by {step.operator} with fewer channels", ends=True, differs=True
            )
            return None
        prediction, recorded = self.predictions[self.position], self.steps[self.position]
        assert recorded is not None
        if (step.operator, step.path) != (recorded.operator, recorded.path):
            self.fail(
                prediction, f"does not run with fewer channels, but {step.operator} does", ends=True, differs=True
            )
            return None
        # NaN is not equal to itself.
        if step.constants != recorded.constants and repr(step.constants) != repr(recorded.constants):
            self.fail(prediction, "takes a number that depends on the number of channels", differs=True)
        if step.sources != recorded.sources:
            self.fail(prediction, "takes other tensors with fewer channels", differs=True)
        return prediction

    def _skip(self) -> None:
        """Go to the next operator that does not pass its input on."""
        while self.position < len(self.steps) and self.steps[self.position] is None:
            self.position += 1

    def end(self) -> None:
        """Note where operators are missing in the end."""
        self._skip()
        if self.position < len(self.steps):
            self.fail(self.predictions[self.position], "does not run with fewer channels", ends=True, differs=True)

    def _compared(self, prediction: Prediction, func: Any, args: Any, kwargs: Any) -> Any:
        expected = prediction.at(self.sizes)
        if prediction.start is not None and _start(args) != self.sizes[prediction.start]:
            self.fail(prediction, "begins at a fixed number of channels", differs=True)
        try:
            out = super().operate(func, args, kwargs)
        except Exception as error:
            given = tensors_in((args, kwargs))
            if not expected or not given or not _returns_new(func, len(expected)):
                raise  # It failed when it was recorded, too, or nothing can take the place of its outputs.
            self.fail(prediction, f"fails with fewer channels ({first_line(error)[:120]})")
            return _with_shapes(func, given[0], expected)
        shapes = [tuple(tensor.shape) for tensor in ([out] if isinstance(out, Tensor) else tensors_in(out))]
        if shapes == expected:
            return out
        self.fail(prediction, f"returns {shapes} instead of {expected} with fewer channels")
        return _with_shapes(func, tensors_in(out)[0], expected) if _returns_new(func, len(expected)) else out


def _equal(value: Any, other: Any) -> bool:
    """Whether two numbers or nested lists of numbers are equal; anything else is."""
    return repr(value) == repr(other) if isinstance(value, (bool, int, float, list, tuple)) else True


def _start(args: Sequence[Any]) -> int:
    """Where a slice begins."""
    source, dim, start = (*args, 0, None)[:3]
    return slice(start, None).indices(source.shape[dim])[0]


def _returns_new(func: Any, count: int) -> bool:
    """Whether an operator returns that many tensors, one by one or as a list, and writes into none."""
    return not func._schema.is_mutable and (_is_list(func) or len(func._schema.returns) == count)


def _is_list(func: Any) -> bool:
    returns = func._schema.returns
    return len(returns) == 1 and isinstance(returns[0].type, torch.ListType)


def _with_shapes(func: Any, like: Tensor, shapes: Sequence[tuple[int, ...]]) -> Any:
    """Outputs of an operator with the given shapes."""
    made = [torch.empty(shape, dtype=like.dtype, device=like.device) for shape in shapes]
    return made if _is_list(func) else made[0] if len(made) == 1 else tuple(made)


# -- search ------------------------------------------------------------------------------------------------------------

# Runs the model with these groups resized.
Attempt: TypeAlias = Callable[[frozenset[int]], Sequence[Violation]]

# Yields groups to leave at full width, receives whether that helps, and returns those that are needed.
_Search: TypeAlias = Generator[list[int], bool | None, list[int]]


def blocking_groups(
    groups: frozenset[int], violations: Sequence[Violation], attempt: Attempt, latest: Callable[[int], list[int]]
) -> dict[int, Note]:
    """Groups that have to keep their width for a forward to get past violations, each with what fails otherwise.

    The outputs of an operator should depend on the groups in them: these are the candidates, and operators that have
    none in common are searched at the same time. Where that does not help, or the forward fails between operators, the
    candidates are all groups so far, the latest first: `latest` returns them, given the number of an operator.
    """
    candidates: dict[Violation, list[int]] = {}
    for violation in violations:
        if (own := violation.groups & groups) and own.isdisjoint(chain(*candidates.values())):
            candidates[violation] = sorted(own)
    found = _searched(groups, candidates, attempt)
    # What helped together with others has to help alone.
    helping = {entry: kept for entry, kept in found.items() if _helps(attempt(groups.difference(kept)), entry)}
    if not helping:
        first = violations[0]
        met = [group for group in latest(first.position) if group in groups] or sorted(groups)
        helping = _searched(groups, {first: met}, attempt)
    return {group: entry.note for entry, kept in helping.items() for group in kept}


def _searched(
    groups: frozenset[int], candidates: Mapping[Violation, list[int]], attempt: Attempt
) -> dict[Violation, list[int]]:
    """For each violation the groups that are needed to get past it; all searches share their attempts."""
    searches = {violation: _search(found) for violation, found in candidates.items()}
    kept: dict[Violation, list[int]] = {}
    later: Sequence[Violation] = ()
    while True:
        for violation, search in [*searches.items()]:
            try:
                kept[violation] = search.send(_helps(later, violation) if violation in kept else None)
            except StopIteration as end:
                kept[violation] = end.value
                del searches[violation]
        if not searches:
            return kept
        later = attempt(groups.difference(*kept.values()))


def _helps(later: Sequence[Violation], violation: Violation) -> bool:
    """Whether a forward got past a violation this time."""
    return not any(
        other.position == violation.position or (other.ends and other.position < violation.position) for other in later
    )


def _search(candidates: list[int]) -> _Search:
    """As few candidates as help, from the first on; usually one.

    Where the last of them does not help alone, all up to it are needed.
    """
    count = 1
    while count < len(candidates) and not (yield candidates[:count]):
        count *= 2
    low, high = count // 2 + 1, min(count, len(candidates))
    while low < high:
        middle = (low + high) // 2
        if (yield candidates[:middle]):
            high = middle
        else:
            low = middle + 1
    last = candidates[low - 1]
    return [last] if low > 1 and (yield [last]) else candidates[:low]
