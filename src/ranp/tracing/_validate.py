"""Validating labels: the model runs at reduced widths, without values, and every shape is compared with its prediction.

A forward may rely on the number of channels (in a reshape, for example). The groups concerned are found by trying which
of them have to keep their width for the forward to work.
"""

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, count
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ranp.errors import first_line
from ranp.graph import ChannelGraph, Ints, SizeAttribute
from ranp.module_utils import tensors_in
from ranp.surgery import resized
from ranp.tracing._adjustments import Step
from ranp.tracing._build import Build, Prediction, build
from ranp.tracing._capture import Call, ModelCapture, numbers_in
from ranp.tracing._meta_model import MetaModel, Observer
from ranp.tracing._propagate import Note, Rule, Tracer, propagate
from ranp.tracing._requests import RESHAPE_FAILS, VIEWS, Requests, Reshapes, WidthTrial
from ranp.tracing._rescale import note_rescalings
from ranp.tracing._stored_sizes import Seen, as_attributes, note_sizes, stored_sizes


def validated(capture: ModelCapture, find_rule: Callable[[Call], Rule]) -> ChannelGraph:
    """Propagate labels through captured passes, and return a graph that is right at all widths that were tried."""
    requests = Requests(capture, find_rule)
    sizes: dict[tuple[str, str], Seen] = {}
    for turn in count():
        if requests.adjustments.stale:
            tracer = propagate(capture, find_rule, requests.adjustments)
        tracer.adjust()
        note_sizes(tracer, sizes)
        built = build(capture.meta_model, tracer)
        trial = Trial(capture.meta_model, built, turn)
        if _answered(requests, tracer, trial):
            continue
        blocking, found = _all_blocking_groups(trial)
        sizes |= found
        # A view that splits channels so that all of them are coupled may split them in another way.
        doubted = {step: dims for step, (dims, alone) in built.splits.items() if alone}
        if any([requests.adjustments.turn(step, dims) for step, dims in doubted.items()]):
            continue
        note_sizes(tracer, found)
        if found and _answered(requests, tracer, trial.with_attributes(as_attributes(found))):
            continue
        note_rescalings(tracer, capture, find_rule)
        if blocking or found or requests.adjustments.factors:
            reasons = _weights(built.graph, blocking)
            for layer in tracer.passes[0].layers:
                if layer.weight in reasons and layer.out is not None:
                    tracer.unprunable.append((layer.out, reasons[layer.weight]))
            built = build(capture.meta_model, tracer, predict=False)
        return replace(built.graph, untraced_training_mode=capture.untraced_training_mode)


def _answered(requests: Requests, tracer: Tracer, trial: "Trial") -> bool:
    """Whether labels were adjusted to what the forward asks for at other widths, so that it has to be tried again."""
    groups = frozenset(range(len(trial.built.graph.groups)))
    violations = trial.violations(groups)
    sizes = WidthTrial(trial.built, trial.widths(groups))
    if any([requests.view(sizes, entry.step, entry.asked) for entry in violations if entry.asked]):
        return True
    return any([requests.number(tracer, sizes, entry.step, entry.change) for entry in violations if entry.change])


def _all_blocking_groups(trial: "Trial") -> tuple[dict[int, Note], dict[tuple[str, str], Seen]]:
    """All groups whose widths the forward relies on, each with what fails otherwise; and stored numbers of channels."""
    found: dict[int, Note] = {}
    sizes: dict[tuple[str, str], Seen] = {}
    groups = frozenset(range(len(trial.built.graph.groups)))
    while groups and (violations := trial.violations(groups)):
        if more := stored_sizes(trial, trial.meta_model.modules, groups, violations):
            sizes |= more
            trial = trial.with_attributes(as_attributes(more))
            continue
        # Where the outputs of an operator should depend on one group alone, that group has to keep its width.
        alone = {min(held): entry.note for entry in violations if len(held := entry.groups & groups) == 1}
        found |= alone or blocking_groups(groups, violations, trial.violations, trial.latest)
        groups = groups.difference(found)
    return found, sizes


def _weights(graph: ChannelGraph, blocking: Mapping[int, Note]) -> dict[str, Note]:
    """Weights of the layers that produce the given groups."""
    found = {}
    for group, note in blocking.items():
        channels = np.arange(*graph.offsets[group : group + 2])
        found.update({layer.weight: note for layer in graph.layers if np.isin(channels, layer.channels).any()})
    return found


# -- trials ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Violation:
    """An operator of the resized model whose outputs are not as predicted."""

    position: int  # the operator's number, in the order in which they run
    note: Note
    groups: frozenset[int]  # those that its outputs depend on; empty where the forward fails between operators
    ends: bool  # whether the forward fails there, so that what comes after was not seen
    step: Step = (0, 0)
    asked: tuple[int, ...] = ()  # by a view: its shape
    change: float = 0.0  # of a number among the arguments, as a factor; 0 if none has changed


_GOLDEN = (5**0.5 - 1) / 2


class Trial:
    """Runs of a model at other widths."""

    def __init__(self, meta_model: MetaModel, built: Build, turn: int = 0) -> None:
        self.meta_model, self.built, self.turn = meta_model, built, turn
        self.violations = cache(self._violations)
        self.reshapes = False  # whether some fail
        self._groups_of_axes = [frozenset(np.flatnonzero(row[:-1]).tolist()) for row in built.graph.costs.axes]

    def attempt(self, groups: frozenset[int]) -> Sequence[Violation]:
        """The same as `violations`."""
        return self.violations(groups)

    def with_attributes(self, attributes: Sequence[SizeAttribute]) -> "Trial":
        """Trials in which further attributes of modules are resized."""
        graph = replace(self.built.graph, attributes=(*self.built.graph.attributes, *attributes))
        trial = Trial(self.meta_model, replace(self.built, graph=graph), self.turn)
        trial.reshapes = self.reshapes
        return trial

    def widths(self, groups: Collection[int]) -> Ints:
        """Other widths for some groups, and the full width of the others.

        Fractions are far apart for groups that follow each other, so that a size that a forward computes from one width
        is rarely that of another.
        """
        widths = self.built.graph.widths.copy()
        for index in groups:
            fraction = (index * _GOLDEN + self.turn / 3) % 1
            widths[index] = max(1, min(widths[index] - 1, 2 + int(fraction * (widths[index] - 2))))
        return widths

    def _violations(self, groups: frozenset[int]) -> tuple[Violation, ...]:
        """Run the model with these groups resized, and compare all shapes with the predictions.

        Where an operator fails or returns other shapes, the run continues with what was predicted, so that one run
        finds many violations. It ends where the forward itself fails.
        """
        found = self._tried(groups)
        if not self.reshapes and any(entry.ends and RESHAPE_FAILS.search(entry.note.reason) for entry in found):
            self.reshapes = True  # Looking out for them takes time.
            found = self._tried(groups)
        return found

    def _tried(self, groups: frozenset[int]) -> tuple[Violation, ...]:
        graph = self.built.graph
        widths = self.widths(groups)
        sizes = graph.costs.axes_at(widths)
        before, found = 0, list[Violation]()
        with resized(self.meta_model.modules, self.meta_model.tensors, graph, widths):
            for training, predictions in enumerate(self.built.predictions):
                comparison = _Comparison(predictions, sizes)
                try:
                    with Reshapes(comparison.reshaped) if self.reshapes else nullcontext():
                        self.meta_model.run(comparison, training=bool(training))
                except Exception as error:
                    mode = " in training mode" if training else ""
                    comparison.fail(None, f"fails with fewer channels{mode} ({first_line(error)[:120]})")
                for position, prediction, note, more in comparison.failures:
                    groups, ends = self._groups(prediction), prediction is None
                    found.append(Violation(before + position, note, groups, ends, (training, position), **more))
                before += len(predictions)
        return tuple(found)

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


class _Comparison(Observer):
    """Compares the outputs of operators with the predictions, and replaces them where they differ."""

    def __init__(self, predictions: Sequence[Prediction], sizes: Ints) -> None:
        super().__init__()
        self.predictions, self.sizes = predictions, sizes.tolist()
        self.failures: list[tuple[int, Prediction | None, Note, dict[str, Any]]] = []
        self.position = 0
        self.held: Any = None
        self.comparable = True

    def fail(self, prediction: Prediction | None, reason: str, *, ahead: int = 0, **more: Any) -> None:
        """Note that the current operator, or the forward before it, fails; `more` are fields of `Violation`."""
        operator = "forward" if prediction is None else prediction.operator
        self.failures.append((self.position + ahead, prediction, Note(self.path, operator, reason), more))

    def reshaped(self, asked: Sequence[int]) -> Sequence[int] | None:
        """The predicted shape of a reshape that fails; it may copy its input first."""
        for ahead, prediction in enumerate(self.predictions[self.position : self.position + 2] if self.comparable else ()):
            if prediction.operator in VIEWS:
                self.fail(prediction, "fails with fewer channels", ahead=ahead, asked=tuple(asked))
                return prediction.at(self.sizes)[0]
        return None

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator; where it fails or returns other shapes, return what was predicted."""
        out = self._compared(func, args, kwargs)
        self.position += 1
        # New tensors that someone else holds are detached by torch, which the capture saw as an operator.
        self.held = out
        return out

    def _compared(self, func: Any, args: Any, kwargs: Any) -> Any:
        prediction = self._prediction(func)
        if prediction is None:
            return super().operate(func, args, kwargs)
        expected = prediction.at(self.sizes)
        try:
            out = super().operate(func, args, kwargs)
        except Exception as error:
            given = tensors_in((args, kwargs))
            if not given or not _returns_new(func, len(expected)):
                raise
            asked = _asked(func, args)
            self.fail(prediction, f"fails with fewer channels ({first_line(error)[:120]})", asked=asked)
            return _with_shapes(func, given[0], expected)
        shapes = [tuple(tensor.shape) for tensor in tensors_in(out)]
        if shapes == expected:
            self._compare_numbers(prediction, numbers_in(func, args, kwargs))
            return out
        asked = _asked(func, args)
        self.fail(prediction, f"returns {shapes} instead of {expected} with fewer channels", asked=asked)
        return _with_shapes(func, tensors_in(out)[0], expected) if _returns_new(func, len(expected)) else out

    def _compare_numbers(self, prediction: Prediction, found: Sequence[float]) -> None:
        """Numbers among the arguments have to be the same at all widths, unless weights are rescaled instead."""
        expected = prediction.numbers_at(self.sizes)
        if found == expected or all(map(math.isclose, found, expected)):
            return
        ratio = found[0] / prediction.numbers[0] if len(found) == 1 and prediction.numbers[0] else 0.0
        self.fail(prediction, "takes a number that depends on the number of channels", change=ratio)

    def _prediction(self, func: Any) -> Prediction | None:
        """The prediction for an operator.

        None once torch runs other operators than before, which it may choose by size: then nothing can be compared.
        """
        self.comparable = self.comparable and self.position < len(self.predictions)
        if self.comparable:
            self.comparable = self.predictions[self.position].operator == func.overloadpacket.__name__
        return self.predictions[self.position] if self.comparable else None


def _asked(func: Any, args: Any) -> tuple[int, ...]:
    """The shape that a view asks for; empty for other operators."""
    return tuple(args[1]) if func.overloadpacket.__name__ in VIEWS else ()


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
