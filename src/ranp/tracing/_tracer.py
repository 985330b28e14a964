"""The engine: lets channel labels flow through the operators of one forward pass.

It knows nothing of single operators; `_rules.py` does. Nothing is computed and no activation is allocated, so tracing a
large volume costs no more memory than tracing a small one.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ranp.tracing._labels import Labels, along, components, laid_along, pad_rank, support
from ranp.tracing._records import Allocated, Axis, Call, Note, Output, Pass, Recording, Source, total
from ranp.tracing._wiring import Wiring


class Tracer:
    """Writes down what every operator of recorded forward passes does to channels."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        rules: "Mapping[str, Rule]",
        fallback: "Rule",
        whole_blocks: Container[int] = (),
        filled: Container[int] = (),
    ) -> None:
        self.rules, self.fallback, self.whole_blocks, self.filled = rules, fallback, whole_blocks, filled
        self.names: dict[int, str] = {}
        self.parameters: set[str] = set()
        for name, tensor in tensors.items():
            self.names.setdefault(id(tensor), name)
            if isinstance(tensor, nn.Parameter):
                self.parameters.add(name)
        self.flows: dict[int, tuple[Labels, ...]] = {}
        self.origins: dict[int, str] = {}
        self.bases: dict[int, int] = {}  # what views are views of, by id
        self.new: set[int] = set()
        self.to_fill: set[int] = set()
        self.count = 0
        self.path, self.operator = "", ""
        self.sources: list[Source] = []
        self.ties: list[tuple[Labels, Labels]] = []
        self.components: tuple[Labels, int] = np.zeros(0, dtype=np.int64), 0  # and of how many ties they are
        self.freezes: list[tuple[Labels, Note]] = []
        self.reads: list[Labels] = []
        self.mixed: list[Labels] = []
        self.splits: list[Labels] = []
        self.attributes: dict[tuple[str, str], Labels] = {}
        self.outermost: list[Labels] = []
        self.passes: list[Pass] = []

    # -- operators -----------------------------------------------------------------------------------------------

    def follow(self, recording: Recording) -> None:
        """Let labels flow through all operators of a pass, and write down what they cost."""
        self.passes.append(Pass())
        wiring = Wiring(self.is_weight)
        for call in recording.calls:
            layers = len(self.seen.layers)
            self._step(call)
            wiring.follow(call, self.seen.layers[layers:])
        self.seen.nodes.extend(wiring.end(recording.outputs))
        self.path, self.operator = "", "output"
        for tensor in recording.outputs:
            for labels in self.labels(tensor):
                self.freeze(labels, "is an output of the model")
                self.outermost.append(labels.reshape(-1))

    def _step(self, call: Call) -> None:
        self.path, self.operator = call.path, call.name
        tensors, outputs = call.tensors, call.outputs
        before = len(self.seen.macs)
        if tensors and all(self.is_weight(tensor) for tensor in tensors):
            largest = max(tensors, key=Tensor.numel)
            self.origins.update((id(output), self.origin(largest)) for output in outputs)
        if outputs and outputs[0].numel():
            self._rule(call)(self, call)
        self._note_storage(call)
        shapes = [(tuple(output.shape), self.labels(output)) for output in outputs]
        self.seen.outputs.append(Output(call.path, call.name, shapes, total(self.seen.macs[before:])))

    def _rule(self, call: Call) -> "Rule":
        found = self.rules.get(call.name) or self.rules.get(call.name.rstrip("_"))
        if found is None and torch.Tag.pointwise in call.function.tags:
            found = self.rules["pointwise"]
        return found or self.fallback

    def _note_storage(self, call: Call) -> None:
        """Note what an operator allocates (neither views nor in-place results), and what views are views of."""
        returns = call.function._schema.returns
        for index, output in enumerate(call.outputs):
            fresh = returns[min(index, len(returns) - 1)].alias_info is None and call.name not in _HIDDEN_VIEWS
            if not fresh:
                self.bases[id(output)] = self._base(call.tensors[0])
            elif output.numel():
                allocated = Allocated(call.path, call.name, output.element_size(), self._axes(output))
                self.seen.activations.append(allocated)

    def _axes(self, tensor: Tensor) -> list[Axis]:
        """The tensor's size as a product of axes, one for each labelling and one for all dimensions without labels."""
        axes, seen = [], set[int]()
        for labels in self.labels(tensor):
            axes.append(Axis(labels.reshape(-1), labels.size))
            seen |= support(labels)
        rest = math.prod(size for dim, size in enumerate(tensor.shape) if dim not in seen)
        return [Axis(None, rest), *axes]

    # -- labels --------------------------------------------------------------------------------------------------

    def labels(self, tensor: Tensor) -> tuple[Labels, ...]:
        """The labellings of a tensor; those of a parameter or buffer are made when it is first met."""
        found = self.flows.get(id(tensor))
        if found is None:
            name = self.names.get(id(tensor))
            found = () if name is None else self._label_source(name, tensor)
            self.flows[id(tensor)] = found
        return found

    def set(self, tensor: Tensor, labels: Sequence[Labels]) -> None:
        """Give a tensor its labellings; those that vary along no dimension say nothing and are left out."""
        self.flows[id(tensor)] = tuple(array for array in labels if array.size > 1)

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on parameters and buffers alone."""
        return id(tensor) in self.names or id(tensor) in self.origins

    def make(self, tensor: Tensor) -> None:
        """Meet a new tensor, of zeros say; where channels are written into it later, it has labels from the start."""
        self.new.add(id(tensor))
        if id(tensor) in self.filled:
            wide = [dim for dim, size in enumerate(tensor.shape) if size > 1]
            self.set(tensor, [laid_along(self.fresh(tensor.shape[dim]), dim, tensor.ndim) for dim in wide])

    def fill(self, target: Tensor) -> None:
        """Note that channels are written into a tensor, or into a part of one, that carries none."""
        if self._base(target) in self.new:
            self.to_fill.add(self._base(target))

    def _base(self, tensor: Tensor) -> int:
        return self.bases.get(id(tensor), id(tensor))

    def origin(self, weight: Tensor) -> str:
        """Name of the largest parameter or buffer that a weight was computed from."""
        return self.names.get(id(weight)) or self.origins[id(weight)]

    def fresh(self, count: int) -> Labels:
        """New labels."""
        first, self.count = self.count, self.count + count
        return np.arange(first, self.count)

    def _label_source(self, name: str, tensor: Tensor) -> tuple[Labels, ...]:
        found = []
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                labels = self.fresh(size)
                self.sources.append(Source(name, dim, size, int(labels[0])))
                found.append(laid_along(labels, dim, tensor.ndim))
        return tuple(found)

    def source(self, labels: Labels | None) -> Source | None:
        """The dimension of a parameter that a vector of labels was made for."""
        if labels is None or not self.sources:
            return None
        first = int(labels.reshape(-1)[0])
        index = bisect_right(self.sources, first, key=lambda source: source.first) - 1
        source = self.sources[index]
        return source if source.first <= first < source.first + source.size else None

    def note(self, reason: str) -> Note:
        """A note on the operator at hand."""
        return Note(self.path, self.operator, reason)

    def freeze(self, labels: Labels | None, reason: str) -> None:
        """Keep these channels whole."""
        if labels is not None:
            self.freezes.append((labels.reshape(-1), self.note(reason)))

    def tie(self, a: Labels, b: Labels) -> None:
        """Couple channels pairwise (after broadcasting)."""
        if a is not b:
            left, right = (a, b) if a.shape == b.shape else np.broadcast_arrays(a, b)
            self.ties.append((left.reshape(-1), right.reshape(-1)))

    def couple(self, labels: Labels, dims: Sequence[int]) -> Labels:
        """Couple all channels along some dimensions, which then carry none."""
        for dim in dims:
            if along(labels, dim):
                first = labels.take([0], axis=dim)
                self.tie(first, labels)
                labels = first
        return labels

    def coupled(self, labels: Labels, dims: Iterable[int]) -> bool:
        """Whether all channels along some dimensions are coupled already."""
        component = self.component_of()[labels]
        return all((component == component.take([0], axis=dim)).all() for dim in dims)

    def vector(self, tensor: Tensor, dim: int) -> Labels | None:
        """The labels along one dimension as a vector, or None where it carries none.

        Labels that vary along other dimensions too are coupled along those.
        """
        dim %= tensor.ndim
        found = [labels for labels in self.labels(tensor) if along(labels, dim)]
        vectors = [self.couple(labels, [d for d in range(labels.ndim) if d != dim]).reshape(-1) for labels in found]
        for other in vectors[1:]:
            self.tie(vectors[0], other)
        return vectors[0] if vectors else None

    def meet(self, a: Labels | None, b: Labels | None) -> None:
        """Tie two vectors of labels; where only one side carries channels, they stay whole."""
        if a is not None and b is not None:
            self.tie(a, b)
        else:
            self.freeze(a if b is None else b, "meets a dimension that carries no channels")

    def merge(self, operands: Sequence[Tensor], shapes: Sequence[Sequence[int]], rank: int) -> list[Labels]:
        """Tie the operands of an elementwise operator and return the labels of its result.

        An operand that is wider than 1 where another carries channels, and carries none itself, freezes them.
        """
        padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
        owned = [
            [pad_rank(a, rank) for a in self.labels(t) if not (support(pad_rank(a, rank)) - _wide(shape))]
            for t, shape in zip(operands, padded, strict=True)
        ]
        result: list[Labels] = []
        for i, mine in enumerate(owned):
            for a in mine:
                for j, theirs in enumerate(owned):
                    if i != j:
                        self._confront(a, theirs, padded[j], tie=i < j)
                result = _keep_finest(result, a)
        return result

    def _confront(self, a: Labels, others: list[Labels], shape: Sequence[int], *, tie: bool) -> None:
        if not support(a) & _wide(shape):
            return
        partners = [b for b in others if support(a) & support(b)]
        for b in partners if tie else []:
            self.tie(a, b)
        if not partners:
            self.freeze(a, "meets a tensor that is wider than 1 and carries no channels")

    def split(self, labels: Labels) -> int:
        """Number a view that splits channels, so that it can be told how."""
        self.splits.append(labels.reshape(-1))
        return len(self.splits) - 1

    # -- records -------------------------------------------------------------------------------------------------

    @property
    def seen(self) -> Pass:
        """What the pass at hand has told so far."""
        return self.passes[-1]

    def attribute(self, name: str, labels: Labels | None) -> None:
        """Say that a number kept by the module at hand counts these channels."""
        if labels is not None:
            self.attributes[self.path, name] = labels.reshape(-1)

    def component_of(self) -> Labels:
        """For each label the smallest label that it is coupled with."""
        known, ties = self.components
        if self.count > len(known) or len(self.ties) > ties:
            known = np.concatenate([known, np.arange(len(known), self.count)])
            if len(self.ties) > ties:
                known = components(known, *(np.concatenate(side) for side in zip(*self.ties[ties:], strict=True)))
            self.components = known, len(self.ties)
        return known


Rule = Callable[[Tracer, Call], None]

# Operators whose schema does not say that they return views.
_HIDDEN_VIEWS = {"_unsafe_view", "unsafe_split", "unsafe_split_with_sizes"}


def _wide(shape: Sequence[int]) -> frozenset[int]:
    return frozenset(dim for dim, size in enumerate(shape) if size > 1)


def _keep_finest(result: list[Labels], labels: Labels) -> list[Labels]:
    """Add a labelling; of two that share dimensions the one over more dimensions stays."""
    for index, known in enumerate(result):
        if support(known) & support(labels):
            if support(known) < support(labels):
                return [*result[:index], labels, *result[index + 1 :]]
            return result
    return [*result, labels]
