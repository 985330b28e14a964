"""Validating labels: the model runs at reduced widths, without values, and every shape is compared with its prediction.

A forward may rely on the number of channels (in a reshape, for example). The groups concerned are found by trying which
of them have to keep their width for the forward to work.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ranp.errors import first_line
from ranp.graph import ChannelGraph, Ints, SizeAttribute
from ranp.module_utils import tensors_in
from ranp.surgery import resized
from ranp.tracing._build import Build, Prediction, build
from ranp.tracing._capture import Call, ModelCapture
from ranp.tracing._meta_model import MetaModel, Observer
from ranp.tracing._propagate import Note, Rule, propagate
from ranp.tracing._stored_sizes import Seen, as_attributes, note_sizes, stored_sizes


def validated(capture: ModelCapture, find_rule: Callable[[Call], Rule]) -> ChannelGraph:
    """Propagate labels through captured passes, and return a graph that is right at all widths that were tried."""
    whole_blocks: set[int] = set()
    sizes: dict[tuple[str, str], Seen] = {}
    while True:
        tracer = propagate(capture, find_rule, whole_blocks)
        note_sizes(tracer, sizes)
        built = build(capture.meta_model, tracer)
        blocking, found = _all_blocking_groups(Trial(capture.meta_model, built))
        sizes |= found
        # A view that cannot split channels into a fixed number of blocks may split them into blocks of a fixed size.
        doubtful = blocking.keys() | set(np.flatnonzero(built.graph.widths == 1).tolist())
        turned = {index for index, groups in enumerate(built.splits) if groups & doubtful} - whole_blocks
        if turned:
            whole_blocks |= turned
            continue
        note_sizes(tracer, found)
        if blocking or found:
            reasons = _weights(built.graph, blocking)
            for layer in tracer.passes[0].layers:
                if layer.weight in reasons and layer.out is not None:
                    tracer.unprunable.append((layer.out, reasons[layer.weight]))
            built = build(capture.meta_model, tracer, predict=False)
        return replace(built.graph, untraced_training_mode=capture.untraced_training_mode)


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


class Trial:
    """Runs of a model at other widths."""

    def __init__(self, meta_model: MetaModel, built: Build) -> None:
        self.meta_model, self.built = meta_model, built
        self.violations = cache(self._violations)
        self._groups_of_axes = [frozenset(np.flatnonzero(row[:-1]).tolist()) for row in built.graph.costs.axes]

    def attempt(self, groups: frozenset[int]) -> Sequence[Violation]:
        """The same as `violations`."""
        return self.violations(groups)

    def with_attributes(self, attributes: Sequence[SizeAttribute]) -> "Trial":
        """Trials in which further attributes of modules are resized."""
        graph = replace(self.built.graph, attributes=(*self.built.graph.attributes, *attributes))
        return Trial(self.meta_model, replace(self.built, graph=graph))

    def _violations(self, groups: frozenset[int]) -> tuple[Violation, ...]:
        """Run the model with these groups resized, and compare all shapes with the predictions.

        Where an operator fails or returns other shapes, the run continues with what was predicted, so that one run
        finds many violations. It ends where the forward itself fails.
        """
        graph = self.built.graph
        widths = _widths(graph, groups)
        sizes = graph.costs.axes_at(widths)
        before = 0
        with resized(self.meta_model.modules, self.meta_model.tensors, graph, widths):
            for training, predictions in enumerate(self.built.predictions):
                comparison = _Comparison(predictions, sizes)
                try:
                    self.meta_model.run(comparison, training=bool(training))
                except Exception as error:
                    mode = " in training mode" if training else ""
                    comparison.fail(None, f"fails with fewer channels{mode} ({first_line(error)[:120]})")
                if comparison.failures:
                    return tuple(
                        Violation(before + position, note, self._groups(prediction), ends=prediction is None)
                        for position, prediction, note in comparison.failures
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


def _widths(graph: ChannelGraph, groups: Collection[int]) -> Ints:
    """A quarter, half or three quarters of the width of some groups, in turn, and the full width of the others."""
    widths = np.array([group.width for group in graph.groups], dtype=np.int64)
    for index in groups:
        widths[index] = max(1, min(widths[index] - 1, -(-widths[index] * (index % 3 + 1) // 4)))
    return widths


class _Comparison(Observer):
    """Compares the outputs of operators with the predictions, and replaces them where they differ."""

    def __init__(self, predictions: Sequence[Prediction], sizes: Ints) -> None:
        super().__init__()
        self.predictions, self.sizes = predictions, sizes.tolist()
        self.failures: list[tuple[int, Prediction | None, Note]] = []
        self.position = 0
        self.comparable = True

    def fail(self, prediction: Prediction | None, reason: str) -> None:
        """Note that the current operator, or the forward before it, fails."""
        operator = "forward" if prediction is None else prediction.operator
        self.failures.append((self.position, prediction, Note(self.path, operator, reason)))

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator; where it fails or returns other shapes, return what was predicted."""
        out = self._compared(func, args, kwargs)
        self.position += 1
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
            self.fail(prediction, f"fails with fewer channels ({first_line(error)[:120]})")
            return _with_shapes(func, given[0], expected)
        shapes = [tuple(tensor.shape) for tensor in tensors_in(out)]
        if shapes == expected:
            return out
        self.fail(prediction, f"returns {shapes} instead of {expected} with fewer channels")
        return _with_shapes(func, tensors_in(out)[0], expected) if _returns_new(func, len(expected)) else out

    def _prediction(self, func: Any) -> Prediction | None:
        """The prediction for an operator.

        None once torch runs other operators than before, which it may choose by size: then nothing can be compared.
        """
        self.comparable = self.comparable and self.position < len(self.predictions)
        if self.comparable:
            self.comparable = self.predictions[self.position].operator == func.overloadpacket.__name__
        return self.predictions[self.position] if self.comparable else None


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
