"""Trials: the model runs at reduced widths, without values, and every operator is compared with the recorded one."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain, count
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ranp.errors import first_line
from ranp.graph import Ints, SizeAttribute
from ranp.module_utils import tensors_in
from ranp.surgery import resized
from ranp.tracing._adjustments import Place
from ranp.tracing._build import Build, Prediction
from ranp.tracing._capture import Capture, ModelCapture, numbers_in
from ranp.tracing._meta_model import Observer
from ranp.tracing._propagate import Note
from ranp.tracing._requests import RESHAPE_FAILS, VIEWS, Reshapes
from ranp.tracing._signatures import SIZED, Signature, SignatureLog, signatures_of

TURNS = 5
"""In which the widths differ, if so many are needed."""

# For each pass, the signatures of its operators.
Signatures: TypeAlias = Sequence[Sequence[Signature | None]]


def all_signatures(capture: ModelCapture) -> Signatures:
    """The signatures of the operators of each pass."""
    return [signatures_of(recorded.calls) for recorded in capture.passes]


@dataclass(frozen=True)
class Violation:
    """An operator of the resized model that is not the recorded one, or whose outputs are not as predicted."""

    position: int  # the operator's number, in the order in which they run
    note: Note
    groups: frozenset[int]  # those that its outputs depend on; empty where the forward fails between operators
    ends: bool = False  # whether what comes after was not compared
    differs: bool = False  # whether the operator or its arguments are not the recorded ones
    place: Place = (0, 0)
    asked: tuple[int, ...] = ()  # by a view: its shape
    change: float = 0.0  # of a number among the arguments, as a factor; 0 if none has changed


_GOLDEN = (5**0.5 - 1) / 2


def _key(built: Build, turn: int) -> tuple[int, frozenset[tuple[str, str, int]]]:
    return turn, frozenset((entry.module, entry.name, entry.axis) for entry in built.graph.attributes)


def _other_widths(turn: int, full: Ints) -> Ints:
    """The other width of every group. Groups that are equally wide are numbered, so that theirs differ."""
    seen, others = Counter[int](), []
    for width in full.tolist():
        others.append(max(1, min(width, _other_width(turn, seen[width], width))))
        seen[width] += 1
    return np.array(others, dtype=np.int64)


def _other_width(turn: int, number: int, full: int) -> int:
    """Another width for one of the groups that are equally wide."""
    if not turn:
        return min(full - 1, (2, 3, 5)[number % 3])
    # Up to the full one: of groups of three channels, some keep all and others two.
    levels = max(1, full - 1)
    stride = next(n for n in count(max(1, round(_GOLDEN * levels))) if math.gcd(n, levels) == 1)
    return 2 + (number // 3 + number % 3 * levels // 3) // int(levels ** (turn - 1)) * stride % levels


class Trial:
    """Runs of a model at other widths."""

    def __init__(self, capture: ModelCapture, signatures: Signatures, built: Build, turn: int = 0) -> None:
        self.capture, self.signatures, self.built, self.turn = capture, signatures, built, turn
        self.meta_model = capture.meta_model
        self.violations = cache(self._violations)
        self.reshapes = False  # whether some fail
        # Those that were derived from each other, by what they have of their own: what they found is used again.
        self.known: dict[Any, Trial] = {_key(built, turn): self}

    def with_attributes(self, attributes: Sequence[SizeAttribute]) -> "Trial":
        """Trials in which further attributes of modules are resized."""
        graph = replace(self.built.graph, attributes=(*self.built.graph.attributes, *attributes))
        return self._changed(replace(self.built, graph=graph), self.turn)

    def at_turn(self, turn: int) -> "Trial":
        """The same trials at other widths."""
        return self._changed(self.built, turn)

    def _changed(self, built: Build, turn: int) -> "Trial":
        key = _key(built, turn)
        if key not in self.known:
            self.known[key] = Trial(self.capture, self.signatures, built, turn)
            self.known[key].known = self.known
        self.known[key].reshapes |= self.reshapes
        return self.known[key]

    @property
    def sized(self) -> bool:
        """Whether the forward gives sizes that depend on widths to some operator: with few channels, many are equal."""
        steps = chain(*self.built.predictions)
        return any(step.operator.removesuffix("_") in SIZED and self._groups(step) for step in steps)

    @property
    def repeatable(self) -> bool:
        """Whether the model does the same at the same widths, which is tried where there is reason to doubt it."""
        first = self.violations(frozenset(range(len(self.built.graph.groups))))
        doubtful = any(entry.differs and not (self.turn and entry.change) for entry in first)
        return not doubtful or not self.violations(frozenset())

    def widths(self, groups: Collection[int]) -> Ints:
        """Other widths for some groups, and the full width of the others.

        In turn 0 they are two, three or five channels: a forward that branches on their number, or computes with it,
        does so most visibly with few. (With one, a tensor would be broadcast.) In other turns they are any, and as far
        apart as possible, so that a size that a forward computes from one width is rarely that of another.
        """
        widths = self.built.graph.widths.copy()
        chosen = [*groups]
        widths[chosen] = _other_widths(self.turn, widths)[chosen]
        return widths

    def tells_apart(self, turns: Sequence[int]) -> bool:
        """Whether all groups that are equally wide have different widths in some of these turns."""
        full = self.built.graph.widths
        tried = [_other_widths(turn, full) for turn in turns]
        return len({tuple(row) for row in np.stack([full, *tried], axis=1).tolist()}) == len(full)

    def _violations(self, groups: frozenset[int]) -> tuple[Violation, ...]:
        """Run the model with these groups resized, and compare all operators with those recorded and predicted.

        Where an operator fails or returns other shapes, the run continues with what was predicted, so that one run
        finds many violations. It ends where the forward itself fails or runs other operators.
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
                recorded, signatures = self.capture.passes[training], self.signatures[training]
                comparison = _Comparison(predictions, recorded, signatures, sizes)
                try:
                    with Reshapes(comparison.reshaped) if self.reshapes else nullcontext():
                        self.meta_model.run(comparison, training=bool(training))
                    comparison.end()
                except Exception as error:
                    mode = " in training mode" if training else ""
                    comparison.fail(None, f"fails with fewer channels{mode} ({first_line(error)[:120]})", ends=True)
                for position, prediction, note, more in comparison.failures:
                    place = (training, position)
                    found.append(Violation(before + position, note, self._groups(prediction), place=place, **more))
                before += len(predictions)
        return tuple(found)

    def latest(self, position: int) -> list[int]:
        """Groups in the outputs of operators up to that number, the latest first."""
        found: dict[int, None] = {}
        for prediction in reversed([*chain(*self.built.predictions)][: position + 1]):
            found.update(dict.fromkeys(sorted(self._groups(prediction))))
        return list(found)

    @cached_property
    def _groups_of_axes(self) -> list[frozenset[int]]:
        return [frozenset(np.flatnonzero(row[:-1]).tolist()) for row in self.built.graph.costs.axes]

    def _groups(self, prediction: Prediction | None) -> frozenset[int]:
        """Groups that an operator's outputs depend on."""
        axes = {axis for shape in prediction.shapes for _, axis in shape} if prediction else ()
        return frozenset[int]().union(*(self._groups_of_axes[axis] for axis in axes))


class _Comparison(Observer):
    """Compares operators with the recorded ones and with the predictions, and replaces outputs that differ."""

    def __init__(
        self, predictions: Sequence[Prediction], recorded: Capture, signatures: Sequence[Signature | None], sizes: Ints
    ) -> None:
        super().__init__()
        self.predictions, self.signatures, self.sizes = predictions, signatures, sizes.tolist()
        self.recorded = recorded
        self.log = SignatureLog()
        self.failures: list[tuple[int, Prediction | None, Note, dict[str, Any]]] = []
        self.position = 0
        self.ended = False

    def fail(self, prediction: Prediction | None, reason: str, *, ends: bool = False, **more: Any) -> None:
        """Note that the current operator, or the forward before it, fails; `more` are fields of `Violation`."""
        if not self.ended:
            operator = "forward" if prediction is None else prediction.operator
            note = Note(self.path, operator, reason)
            self.failures.append((self.position, prediction, note, {"ends": ends, **more}))
            self.ended = ends

    def note_value(self, value: Any) -> None:
        """Compare a value of which a tensor is made."""
        place = len(self.values)
        super().note_value(value)
        if place < len(self.recorded.values) and not _equal(value, self.recorded.values[place]):
            self._skip()
            following = self.predictions[min(self.position, len(self.predictions) - 1)]
            self.fail(following, "takes a tensor made of a number of channels", differs=True)

    def reshaped(self, asked: Sequence[int]) -> Sequence[int] | None:
        """The predicted shape of a reshape that fails."""
        self._skip()  # It may copy its input first.
        if self.ended or self.position == len(self.predictions):
            return None
        prediction = self.predictions[self.position]
        if prediction.operator not in VIEWS:
            return None
        self.fail(prediction, "fails with fewer channels", asked=tuple(asked))
        return prediction.at(self.sizes)[0]

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator; where it fails or returns other shapes, return what was predicted."""
        if self.ended:
            return super().operate(func, args, kwargs)
        signature = self.log.signature(func, self.path, args, kwargs)
        prediction = self._prediction(signature, func, args, kwargs) if signature else None
        try:
            out = self._compared(prediction, func, args, kwargs) if prediction else super().operate(func, args, kwargs)
        finally:
            self.position += prediction is not None
        self.log.returned(func, signature, args, [out] if isinstance(out, Tensor) else tensors_in(out))
        return out

    def _prediction(self, signature: Signature, func: Any, args: Any, kwargs: Any) -> Prediction | None:
        """The prediction for an operator; None once others run than those recorded, so that nothing can be compared."""
        self._skip()
        if self.position == len(self.signatures):
            reason = f"is followed by {signature.operator} with fewer channels"
            self.fail(self.predictions[-1], reason, ends=True, differs=True)
            return None
        prediction, recorded = self.predictions[self.position], self.signatures[self.position]
        assert recorded is not None
        if (signature.operator, signature.path) != (recorded.operator, recorded.path):
            reason = f"does not run with fewer channels, but {signature.operator} does"
            self.fail(prediction, reason, ends=True, differs=True)
            return None
        # NaN is not equal to itself.
        changed = signature.constants != recorded.constants and repr(signature.constants) != repr(recorded.constants)
        if changed or prediction.factor:
            self._compare_numbers(prediction, numbers_in(func, args, kwargs))
        if signature.sources != recorded.sources:
            self.fail(prediction, "takes other tensors with fewer channels", differs=True)
        return prediction

    def _compare_numbers(self, prediction: Prediction, found: Sequence[float]) -> None:
        """Numbers among the arguments have to be the same at all widths, unless weights are rescaled instead."""
        expected = prediction.numbers_at(self.sizes)
        if prediction.factor and len(found) == len(expected) and all(map(math.isclose, found, expected)):
            return
        ratio = found[0] / prediction.numbers[0] if len(found) == len(expected) == 1 and expected[0] else 0.0
        self.fail(prediction, "takes a number that depends on the number of channels", differs=True, change=ratio)

    def _skip(self) -> None:
        """Go to the next operator that does not pass its input on."""
        while self.position < len(self.signatures) and self.signatures[self.position] is None:
            self.position += 1

    def end(self) -> None:
        """Note where operators are missing in the end."""
        self._skip()
        if self.position < len(self.signatures):
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
            self.fail(prediction, f"fails with fewer channels ({first_line(error)[:120]})", asked=_asked(func, args))
            return _with_shapes(func, given[0], expected)
        shapes = [tuple(tensor.shape) for tensor in ([out] if isinstance(out, Tensor) else tensors_in(out))]
        if shapes == expected:
            return out
        reason = f"returns {shapes} instead of {expected} with fewer channels"
        self.fail(prediction, reason, asked=_asked(func, args))
        return _with_shapes(func, tensors_in(out)[0], expected) if _returns_new(func, len(expected)) else out


def _asked(func: Any, args: Any) -> tuple[int, ...]:
    """The shape that a view asks for; empty for other operators."""
    return tuple(args[1]) if func.overloadpacket.__name__ in VIEWS else ()


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
