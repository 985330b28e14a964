"""Propagating channel labels through the operators of captured forward passes.

The tracer knows no operator; the rules in `rules/` do. Nothing is computed and no activation is allocated, so tracing a
large volume takes no more memory than tracing a small one.
"""

import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from torch import Tensor, nn

from ranp.graph import Node
from ranp.tracing._capture import Call, Capture, ModelCapture
from ranp.tracing._graph_nodes import NodeBuilder
from ranp.tracing._labels import Axis, Labels, Source, along, components, labels_along, pad_rank, support


@dataclass(frozen=True)
class Note:
    """Why channels cannot be pruned: the operator at which that was found, and the reason."""

    path: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Allocated:
    """The memory that an operator allocated for one of its outputs: bytes times the sizes of some axes."""

    path: str
    operator: str
    bytes: int
    axes: list[Axis]


@dataclass(frozen=True)
class LayerCall:
    """One run of a convolution or linear layer.

    `inputs` are the channels that it reads; a convolution that passes them on block by block reads none. `computed`
    says that the weight is computed from the parameter.
    """

    weight: str
    bias: str | None
    inputs: Axis
    out: Labels | None
    out_dim: int
    blocks: int
    width: int
    macs: int
    output_elements: int
    computed: bool


@dataclass(frozen=True)
class OperatorCall:
    """One operator: shapes and labels of its outputs, and its cost at full width."""

    path: str
    name: str
    outputs: list[tuple[tuple[int, ...], tuple[Labels, ...]]]
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Pass:
    """What was found about one forward pass."""

    layers: list[LayerCall] = field(default_factory=list)
    macs: list[tuple[int, list[Axis]]] = field(default_factory=list)  # each a factor times the sizes of some axes
    activations: list[Allocated] = field(default_factory=list)
    operators: list[OperatorCall] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)  # how results of layers reach other layers


class Tracer:
    """The labels of all tensors, and what the operators of captured passes do to them.

    The views numbered in `whole_blocks` split channels into blocks of a fixed size rather than into a fixed number of
    blocks; `filled` holds the ids of new tensors into which channels are written later.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], whole_blocks: Container[int] = (), filled: Container[int] = ()
    ) -> None:
        self.whole_blocks, self.filled = whole_blocks, filled
        self.names: dict[int, str] = {}
        self.held = {id(tensor): tensor for tensor in tensors.values()}
        for name, tensor in tensors.items():
            self.names.setdefault(id(tensor), name)
        self.parameters = {name for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)}
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
        self.unprunable: list[tuple[Labels, Note]] = []
        self.reads: list[Labels] = []
        self.mixed: list[Labels] = []
        self.splits: list[Labels] = []
        self.attributes: dict[tuple[str, str], Labels] = {}
        self.output_labels: list[Labels] = []
        self.passes: list[Pass] = []

    # -- operators -----------------------------------------------------------------------------------------------

    def follow(self, capture: Capture, find_rule: "Callable[[Call], Rule]") -> None:
        """Propagate labels through all operators of a pass, and note their costs."""
        self.passes.append(Pass())
        nodes = NodeBuilder(self.is_weight)
        for call in capture.calls:
            layers = len(self.seen.layers)
            self._step(call, find_rule(call))
            nodes.add(call, self.seen.layers[-1].weight if len(self.seen.layers) > layers else None)
        self.seen.nodes.extend(nodes.end(capture.outputs))
        self.path, self.operator = "", "output"
        for tensor in capture.outputs:
            for labels in self.labels(tensor):
                self.mark_unprunable(labels, "is an output of the model")
                self.output_labels.append(labels.reshape(-1))

    def _step(self, call: Call, rule: "Rule") -> None:
        self.path, self.operator = call.path, call.name
        tensors, outputs = call.tensors, call.outputs
        before = len(self.seen.macs)
        if tensors and all(self.is_weight(tensor) for tensor in tensors):
            largest = max(tensors, key=Tensor.numel)
            self.origins.update((id(output), self.origin(largest)) for output in outputs)
        if outputs and outputs[0].numel():
            rule(self, call)
        allocated = self._note_storage(call)
        shapes = [(tuple(output.shape), self.labels(output)) for output in outputs]
        macs = sum(factor * math.prod(axis.size for axis in axes) for factor, axes in self.seen.macs[before:])
        self.seen.operators.append(OperatorCall(call.path, call.name, shapes, macs, allocated))

    def _note_storage(self, call: Call) -> int:
        """Note what an operator allocates (neither views nor in-place results) and the bases of views; in bytes."""
        returns, total = call.function._schema.returns, 0
        for index, output in enumerate(call.outputs):
            if returns[min(index, len(returns) - 1)].alias_info is not None or call.name in _HIDDEN_VIEWS:
                self.bases[id(output)] = self._base(call.tensors[0])
            elif output.numel():
                size = output.element_size()
                self.seen.activations.append(Allocated(call.path, call.name, size, self._axes(output)))
                total += size * output.numel()
        return total

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
        """The labellings of a tensor; those of a parameter or buffer are made on its first use."""
        if id(tensor) not in self.flows:
            self.flows[id(tensor)] = self._label_source(tensor) if id(tensor) in self.names else ()
        return self.flows[id(tensor)]

    def set(self, tensor: Tensor, labels: Sequence[Labels]) -> None:
        """Give a tensor its labellings; those that vary along no dimension say nothing and are left out."""
        self.flows[id(tensor)] = tuple(array for array in labels if array.size > 1)

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on nothing but parameters and buffers."""
        return id(tensor) in self.names or id(tensor) in self.origins

    def make(self, tensor: Tensor) -> None:
        """Note a new tensor, such as zeros; where channels are written into it later, it has labels from the start."""
        self.new.add(id(tensor))
        if id(tensor) in self.filled:
            wide = [dim for dim, size in enumerate(tensor.shape) if size > 1]
            self.set(tensor, [labels_along(self.fresh(tensor.shape[dim]), dim, tensor.ndim) for dim in wide])

    def fill(self, target: Tensor) -> None:
        """Note that channels are written into a tensor, or into a part of one, that carries none."""
        if self._base(target) in self.new:
            self.to_fill.add(self._base(target))

    def _base(self, tensor: Tensor) -> int:
        return self.bases.get(id(tensor), id(tensor))

    def is_permuted(self, weight: Tensor) -> bool:
        """Whether a weight is a parameter or buffer, or a view of one with its dimensions in another order."""
        held = self.held.get(self._base(weight))
        return held is not None and _layout(held) == _layout(weight)

    def origin(self, weight: Tensor) -> str:
        """Name of the largest parameter or buffer that a weight was computed from."""
        return self.names.get(id(weight)) or self.origins[id(weight)]

    def fresh(self, count: int) -> Labels:
        """New labels."""
        first, self.count = self.count, self.count + count
        return np.arange(first, self.count)

    def _label_source(self, tensor: Tensor) -> tuple[Labels, ...]:
        found = []
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                labels = self.fresh(size)
                self.sources.append(Source(self.names[id(tensor)], dim, size, int(labels[0])))
                found.append(labels_along(labels, dim, tensor.ndim))
        return tuple(found)

    def source(self, labels: Labels | None) -> Source | None:
        """The dimension of a parameter that a vector of labels was made for."""
        if labels is None or not self.sources:
            return None
        first = int(labels.reshape(-1)[0])
        source = self.sources[bisect_right(self.sources, first, key=lambda source: source.first) - 1]
        return source if source.first <= first < source.first + source.size else None

    def mark_unprunable(self, labels: Labels | None, reason: str) -> None:
        """Mark channels as unprunable."""
        if labels is not None:
            self.unprunable.append((labels.reshape(-1), Note(self.path, self.operator, reason)))

    def freeze(self, labels: Labels | None, reason: str) -> None:
        """The name of `mark_unprunable` in version 0.1."""
        warnings.warn("Tracer.freeze is now called mark_unprunable", DeprecationWarning, stacklevel=2)
        self.mark_unprunable(labels, reason)

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
        """Tie two vectors of labels; where only one side carries channels, they are unprunable."""
        if a is not None and b is not None:
            self.tie(a, b)
        else:
            self.mark_unprunable(a if b is None else b, "meets a dimension that carries no channels")

    def merge(self, operands: Sequence[Tensor], shapes: Sequence[Sequence[int]], rank: int) -> list[Labels]:
        """Tie the operands of an elementwise operator and return the labels of its result.

        An operand that is wider than 1 where another carries channels, and carries none itself, makes them unprunable.
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
            self.mark_unprunable(a, "meets a tensor that is wider than 1 and carries no channels")

    def split(self, labels: Labels) -> int:
        """Number a view that splits channels, so that `whole_blocks` can refer to it."""
        self.splits.append(labels.reshape(-1))
        return len(self.splits) - 1

    # -- findings ------------------------------------------------------------------------------------------------

    @property
    def seen(self) -> Pass:
        """What has been found about the current pass so far."""
        return self.passes[-1]

    def attribute(self, name: str, labels: Labels | None) -> None:
        """Note that a number stored by the current module counts these channels."""
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


# Reads the labels of an operator's arguments, ties them or marks them as unprunable, and labels its outputs.
Rule: TypeAlias = Callable[[Tracer, Call], None]

# Operators whose schema does not say that they return views.
_HIDDEN_VIEWS = {"_unsafe_view", "unsafe_split", "unsafe_split_with_sizes"}


def _layout(tensor: Tensor) -> list[tuple[int, int]]:
    """Sizes and strides of all dimensions, in any order."""
    return sorted(zip(tensor.shape, tensor.stride(), strict=True))


def _wide(shape: Sequence[int]) -> frozenset[int]:
    return frozenset(dim for dim, size in enumerate(shape) if size > 1)


def _keep_finest(result: list[Labels], labels: Labels) -> list[Labels]:
    """Add a labelling; of two that share dimensions the one over more dimensions stays."""
    for index, known in enumerate(result):
        if support(known) & support(labels):
            finest = labels if support(known) < support(labels) else known
            return [*result[:index], finest, *result[index + 1 :]]
    return [*result, labels]


def propagate(capture: ModelCapture, find_rule: Callable[[Call], Rule], whole_blocks: Collection[int] = ()) -> Tracer:
    """Propagate channel labels through all operators of the captured passes; for `whole_blocks` see `Tracer`."""
    filled: set[int] = set()
    while True:
        tracer = Tracer(capture.meta_model.tensors, whole_blocks, filled)
        for found in capture.passes:
            tracer.follow(found, find_rule)
        if tracer.to_fill <= filled:
            return tracer
        filled |= tracer.to_fill
