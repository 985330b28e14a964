"""Parameters to rescale where a forward multiplies by a number that depends on a width.

Attention often divides by the square root of the head size, and a pruned head is smaller. What is divided is
proportional to the weights of some layer. If nothing else depends on these, multiplying them by the inverse of what the
number changes by leaves the result as it was.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ranp.graph import Ints
from ranp.tracing._capture import Call, Capture, ModelCapture
from ranp.tracing._labels import Labels, along, first_along
from ranp.tracing._propagate import Rescaling, Rule, Tracer
from ranp.tracing.rules import layers, norms, views

_MOVES = (views.reshape, views.permute, views.expand, views.repeat, views.cut)
# Operators whose result is proportional to their first argument, to each, and to all of them together.
_FIRST = {"clone", "contiguous", "detach", "alias", "_to_copy", "dropout", "native_dropout", "neg", "div"}
_EACH = {"mul", "mm", "bmm"}
_ALL = {"add", "sub", "cat", "stack"}

# A parameter, one of its dimensions, and places along it.
Entries: TypeAlias = tuple[str, int, Ints]
Mask: TypeAlias = npt.NDArray[np.bool_]
_NONE: Labels = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class _Leaf:
    """A layer or norm, by the number of its call; or a parameter that an operator adds, which is an argument of it."""

    call: int
    argument: int | None = None


@dataclass(frozen=True)
class _Walk:
    """What was met on the way from a tensor back to the layers that it is proportional to."""

    tensors: tuple[Tensor, ...] = ()
    calls: frozenset[int] = frozenset()
    leaves: Mapping[_Leaf, Mask] = field(default_factory=dict)  # which of their channels the tensor consists of

    def __add__(self, other: "_Walk") -> "_Walk":
        shared = {leaf: self.leaves[leaf] | mask for leaf, mask in other.leaves.items() if leaf in self.leaves}
        return _Walk(self.tensors + other.tensors, self.calls | other.calls, {**self.leaves, **other.leaves, **shared})


class Producers:
    """Finds the parameters that tensors of one pass are proportional to."""

    def __init__(self, tracer: Tracer, capture: Capture, find_rule: Callable[[Call], Rule]) -> None:
        self.tracer, self.calls, self.find_rule = tracer, capture.calls, find_rule
        self.maker: dict[int, int] = {}
        self.users: dict[int, set[int]] = defaultdict(set)  # by id
        self.readers: dict[str, list[tuple[Call, Tensor]]] = defaultdict(list)  # by parameter
        self.returned = {id(tensor) for tensor in capture.outputs}
        for number, call in enumerate(self.calls):
            for output in call.outputs:
                self.maker.setdefault(id(output), number)
            for tensor in call.tensors:
                self.users[id(tensor)].add(number)
                parameter = tracer.base_name(tensor)
                if parameter and not any(tracer.base_name(output) == parameter for output in call.outputs):
                    self.readers[parameter].append((call, tensor))

    def of(self, number: int) -> tuple[Entries, ...]:
        """Parameters that the first argument of a product is proportional to and nothing else depends on, if any."""
        call = self.calls[number]
        if call.name not in ("mul", "div") or not self._sources(call, self.find_rule(call)):
            return ()
        if self.tracer.base_name(source := call.tensors[0]):
            whole = (self._entry(call, source, dim) for dim in range(source.ndim))
            return next(((entry,) for entry in whole if entry), ())
        for found in self._walks(source):
            walk = found + _Walk(calls=frozenset([number]))
            if all(self._is_private(tensor, walk) for tensor in walk.tensors):
                entries = [self._entries(leaf, mask) for leaf, mask in walk.leaves.items()]
                if all(entries):
                    return tuple(entry for of_layer in entries for entry in of_layer)
        return ()

    def sizes(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Operator, output and dimension of the sizes that are met on the way back."""
        for walk in self._walks(self.calls[number].tensors[0]):
            for tensor in walk.tensors:
                made = self.maker[id(tensor)]
                output = next(index for index, out in enumerate(self.calls[made].outputs) if out is tensor)
                yield from ((made, output, dim) for dim in range(tensor.ndim))

    def _walks(self, tensor: Tensor) -> Iterator[_Walk]:
        """The ways back; a product is proportional to each of its factors."""
        number = self.maker.get(id(tensor))
        if number is None or self.calls[number].function._schema.is_mutable:
            return
        call = self.calls[number]
        rule, here = self.find_rule(call), _Walk((tensor,), frozenset([number]))
        if self._is_layer(call, rule):
            yield from (here + walk for walk in self._leaf(_Leaf(number)))
            return
        for sources in self._sources(call, rule):
            ways = (self._added(number, t) if self.tracer.base_name(t) else self._walks(t) for t in sources)
            for walks in product(*ways):
                walk = sum(walks, here)
                if rule is views.cut:
                    walk = _Walk(walk.tensors, walk.calls, self._cut(call, tensor, walk))
                if all(mask.any() for mask in walk.leaves.values()):
                    yield walk

    def _leaf(self, leaf: _Leaf) -> Iterator[_Walk]:
        if len(made := self._made(leaf)):
            yield _Walk(leaves={leaf: np.ones(len(made), dtype=bool)})

    def _added(self, number: int, tensor: Tensor) -> Iterator[_Walk]:
        """A bias that an operator of its own adds."""
        call = self.calls[number]
        if call.name == "add" and tensor.ndim == 1 and tensor.shape[0] == call.outputs[0].shape[-1]:
            yield from self._leaf(_Leaf(number, next(i for i, other in enumerate(call.tensors) if other is tensor)))

    def _is_layer(self, call: Call, rule: Rule) -> bool:
        if rule is layers.multiply:
            return any(self.tracer.is_weight(tensor) for tensor in call.tensors)
        return rule in (layers.convolution, norms.batch_norm, norms.layer_norm)

    def _sources(self, call: Call, rule: Rule) -> list[Sequence[Tensor]]:
        """Arguments that the result is proportional to if all of them are scaled, in one or several ways."""
        rounds = call.arg(2, "rounding_mode") if call.name == "div" else None
        if not call.outputs[0].is_floating_point() or rounds:
            return []
        if call.name in ("add", "sub") and len(call.tensors) < 2:
            return []  # A number is added.
        if rule in _MOVES or call.name in _FIRST:
            return [call.tensors[:1]]
        if call.name in _ALL:
            return [call.tensors]
        if call.name in _EACH and len({*map(id, call.tensors)}) == len(call.tensors):
            return [[tensor] for tensor in call.tensors]
        return []

    def _made(self, leaf: _Leaf) -> Labels:
        """Labels of the channels that a layer or norm makes, or that a bias is added to; empty if there are none."""
        call = self.calls[leaf.call]
        out = call.outputs[0]
        dim = 1 if self.find_rule(call) in (layers.convolution, norms.batch_norm) else out.ndim - 1
        return next((first_along(found, dim) for found in self.tracer.labels(out) if along(found, dim)), _NONE)

    def _cut(self, call: Call, out: Tensor, walk: _Walk) -> Mapping[_Leaf, Mask]:
        """What a cut leaves of channels; nothing where its result does not say."""
        found = dict(walk.leaves)
        for part in self._parts(call, out):
            for leaf, mask in walk.leaves.items():
                left = mask & np.isin(self._made(leaf), part)
                if left.any():
                    share = mask.sum() * out.numel() / call.tensors[0].numel()
                    found[leaf] = left if left.sum() == share else np.zeros_like(mask)
        return found

    def _parts(self, call: Call, out: Tensor) -> Iterator[Labels]:
        """Labels that a cut leaves of those along the dimension that it cuts."""
        for whole in self.tracer.labels(call.tensors[0]):
            for part in self.tracer.labels(out):
                if part.size < whole.size and np.isin(part, whole).all():
                    yield part

    def _is_private(self, tensor: Tensor, walk: _Walk) -> bool:
        """Whether a tensor is used nowhere else; cuts that take other channels of it do not count."""
        used = self.users[id(tensor)] - walk.calls
        return id(tensor) not in self.returned and all(self._takes_others(self.calls[other], walk) for other in used)

    def _takes_others(self, call: Call, walk: _Walk) -> bool:
        parts = [part for output in call.outputs for part in self._parts(call, output)]
        if self.find_rule(call) is not views.cut or not parts:
            return False
        found = [(np.isin(self._made(leaf), part), mask) for leaf, mask in walk.leaves.items() for part in parts]
        return any(taken.any() for taken, _ in found) and not any((taken & mask).any() for taken, mask in found)

    def _entries(self, leaf: _Leaf, mask: Mask) -> list[Entries]:
        """Places in parameters that produce some channels; none if that is not clear."""
        call = self.calls[leaf.call]
        parameters = (
            _parameters(call, self.find_rule(call)) if leaf.argument is None else [(call.tensors[leaf.argument], 0)]
        )
        found = [self._entry(call, tensor, dim, mask) for tensor, dim in parameters]
        return [entry for entry in found if entry] if all(found) else []

    def _entry(self, call: Call, tensor: Tensor, dim: int, mask: Mask | None = None) -> Entries | None:
        """Places along a dimension of a parameter; None where something else depends on them."""
        labels = next((first_along(found, dim) for found in self.tracer.labels(tensor) if along(found, dim)), _NONE)
        source = self.tracer.source(labels) if len(labels) else None
        if source is None or self.tracer.base_name(tensor) != source.tensor:
            return None
        if mask is not None and len(mask) != len(labels):
            return None
        used = labels if mask is None else labels[mask]
        for other, held in self.readers[source.tensor]:
            if other is not call and any(np.isin(used, found).any() for found in self.tracer.labels(held)):
                return None
        return source.tensor, source.dim, np.sort(used) - source.first


def _parameters(call: Call, rule: Rule) -> list[tuple[Tensor, int]]:
    """Tensors that the result of a layer or norm is proportional to, and their dimension of channels, if clear."""
    if rule is layers.multiply:
        bias, _, weight, inner = layers.operands(call)
        found = [(weight, 2 * weight.ndim - 3 - inner), (bias, -1)]
    elif rule is layers.convolution:
        found = [(call.args[1], int(call.args[6])), (call.args[2], 0)]
    else:
        scale, shift = call.args[1:3] if rule is norms.batch_norm else (call.args[2], call.arg(3, "bias"))
        found = [(scale, 0), (shift if isinstance(shift, Tensor) else None, 0)] if scale is not None else []
    return [(tensor, dim % tensor.ndim) for tensor, dim in found if tensor is not None]


def note_rescalings(tracer: Tracer, capture: ModelCapture, find_rule: Callable[[Call], Rule]) -> None:
    """Note what is rescaled at other widths; what the passes do not agree on is unprunable."""
    if not tracer.adjustments.factors:
        return
    passes = [Producers(tracer, found, find_rule) for found in capture.passes]
    noted = [_rescalings(tracer, producers, run) for run, producers in enumerate(passes)]
    for found in noted:
        for entry in found:
            same = [[other for other in others if other.matches(entry)] for others in noted]
            counts = {len(others) for others, run in zip(same, passes, strict=True) if entry.parameter in run.readers}
            if len(counts) > 1:
                tracer.mark_unprunable(
                    entry.labels, "is multiplied by a number that depends on its width in one mode only"
                )
            elif not any(entry.matches(known) for known in tracer.rescalings):
                tracer.rescalings += same[noted.index(found)]


def _rescalings(tracer: Tracer, producers: Producers, run: int) -> list[Rescaling]:
    found = []
    for (where, number), factor in tracer.adjustments.factors.items():
        labels = tracer.along(factor.size)
        if where == run and labels is not None:
            exponent = factor.exponent if producers.calls[number].name == "div" else -factor.exponent
            found += [Rescaling(*entries, labels, exponent) for entries in producers.of(number)]
    return found
