"""Propagating channel labels through the operators of captured forward passes.

The tracer knows no operator; the rules in `rules/` do. Nothing is computed and no activation is allocated, so tracing a
large volume takes no more memory than tracing a small one.
"""

import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ranp.graph import Ints, Node
from ranp.tracing._adjustments import Adjustments, Place, Size
from ranp.tracing._capture import Call, Capture, ModelCapture
from ranp.tracing._graph_nodes import NodeBuilder
from ranp.tracing._labels import Labels, Source, along, components, first_along, labels_along, pad_rank, support
from ranp.tracing._made import Made


@dataclass(frozen=True)
class Note:
    """Why channels cannot be pruned: the operator at which that was found, and the reason."""

    path: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Allocated:
    """The memory that an operator allocated for one of its outputs, which is proportional to the number of labels."""

    path: str
    operator: str
    bytes: int
    labels: Sequence[Labels]


@dataclass(frozen=True)
class LayerCall:
    """One run of a convolution or linear layer.

    `inputs` are the channels that it reads; a convolution that passes them on block by block reads none. `computed`
    says that the weight is computed from the parameter.
    """

    weight: str
    bias: str | None
    inputs: Labels | None
    input_width: int
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
    numbers: list[float]


@dataclass(frozen=True, eq=False)
class Rescaling:
    """Places in a parameter to multiply by (size / full size) ** exponent; the size is the number of some labels."""

    parameter: str
    dim: int
    positions: Ints
    labels: Labels
    exponent: float

    def matches(self, other: "Rescaling") -> bool:
        """Whether another one does the same."""
        mine, theirs = (
            (entry.parameter, entry.dim, entry.positions.tobytes(), entry.labels[0], entry.exponent)
            for entry in (self, other)
        )
        return mine == theirs


@dataclass(frozen=True)
class Pass:
    """What was found about one forward pass."""

    layers: list[LayerCall] = field(default_factory=list)
    macs: list[tuple[int, list[Labels]]] = field(default_factory=list)  # each is proportional to the number of labels
    activations: list[Allocated] = field(default_factory=list)
    operators: list[OperatorCall] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)  # how results of layers reach other layers


class Tracer:
    """The labels of all tensors, and what the operators of captured passes do to them.

    `adjustments` holds what trials showed; `labelled` the ids of tensors that the forward makes and that count
    channels (see `Made`).
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        adjustments: Adjustments | None = None,
        labelled: frozenset[int] = frozenset(),
    ) -> None:
        self.adjustments, self.made = adjustments or Adjustments(), Made(labelled)
        self.names: dict[int, str] = {}
        self.held = {id(tensor): tensor for tensor in tensors.values()}
        for name, tensor in tensors.items():
            self.names.setdefault(id(tensor), name)
        self.parameters = {name for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)}
        self.flows: dict[int, tuple[Labels, ...]] = {}
        self.origins: dict[int, str] = {}
        self.bases: dict[int, int] = {}  # what views are views of, by id
        self.count = 0
        self.path, self.operator = "", ""
        self.sources: list[Source] = []
        self.ties: list[tuple[Labels, Labels]] = []
        self.components: tuple[Labels, int] = np.zeros(0, dtype=np.int64), 0  # and of how many ties they are
        self.unprunable: list[tuple[Labels, Note]] = []
        self.reads: list[Labels] = []
        self.mixed: list[Labels] = []
        self.splits: list[tuple[Place, Labels, Sequence[int]]] = []
        self.attributes: dict[tuple[str, str], Labels] = {}
        self.rescalings: list[Rescaling] = []
        self.output_labels: list[Labels] = []
        self.passes: list[Pass] = []
        self.captures: list[Capture] = []  # of the same passes

    # -- operators -----------------------------------------------------------------------------------------------

    def follow(self, capture: Capture, find_rule: "Callable[[Call], Rule]") -> None:
        """Propagate labels through all operators of a pass, and note their costs."""
        self.passes.append(Pass())
        self.captures.append(capture)
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
        if self.made.reaches(tensors) and not any(self.flows.get(id(t)) for t in tensors if not self.is_weight(t)):
            self.made.pass_on(tensors, outputs)
        if outputs and outputs[0].numel():
            rule(self, call)
        allocated = self._note_storage(call)
        shapes = [(tuple(output.shape), self.labels(output)) for output in outputs]
        macs = sum(found for found, _ in self.seen.macs[before:])
        self.seen.operators.append(OperatorCall(call.path, call.name, shapes, macs, allocated, call.numbers))

    def _note_storage(self, call: Call) -> int:
        """Note what an operator allocates (neither views nor in-place results) and the bases of views; in bytes."""
        returns, total = call.function._schema.returns, 0
        for index, output in enumerate(call.outputs):
            if returns[min(index, len(returns) - 1)].alias_info is not None or call.function in _HIDDEN_VIEWS:
                self.bases[id(output)] = self._base(call.tensors[0])
            elif output.numel():
                size = output.numel() * output.element_size()
                self.seen.activations.append(Allocated(call.path, call.name, size, self.labels(output)))
                total += size
        return total

    # -- labels --------------------------------------------------------------------------------------------------

    def labels(self, tensor: Tensor) -> tuple[Labels, ...]:
        """The labellings of a tensor; those of a parameter or buffer are made on its first use."""
        if id(tensor) not in self.flows:
            self.flows[id(tensor)] = self._label_source(tensor) if id(tensor) in self.names else ()
        return self.flows[id(tensor)]

    def set(self, tensor: Tensor, labels: Sequence[Labels]) -> None:
        """Give a tensor its labellings; those that vary along no dimension say nothing and are left out.

        A view that merges dimensions may bring several together along one. Of a weight they are all kept, since such a
        view is usually undone; of an activation only one is, so that its size is the product of its labellings' sizes.
        """
        kept: list[Labels] = []
        for new in labels:
            for index, known in enumerate(kept) if not self.is_weight(tensor) else ():
                if support(known) & support(new):
                    kept[index], new = self._only_one(known, new)
            kept.append(new)
        self.flows[id(tensor)] = tuple(array for array in kept if array.size > 1)

    def _only_one(self, a: Labels, b: Labels) -> tuple[Labels, Labels]:
        """Two labellings that vary along a common dimension, of which one is left out."""
        left, right = (self.component_of()[labels] for labels in np.broadcast_arrays(a, b))
        finer = a if support(b) <= support(a) else b
        kept = finer if np.array_equal(left, right) else self._most_telling([a, b])
        return (a, b[:0]) if kept is a else (a[:0], b)

    def _most_telling(self, found: Sequence[Labels]) -> Labels:
        """Of labellings that share dimensions one that may be pruned, if any; the others are marked as unprunable."""
        if len(found) == 1:
            return found[0]
        prunable = [labels for labels in found if not self.fixed(labels)]
        chosen = max(prunable or found, key=lambda labels: len(np.unique(labels)))
        for labels in prunable:
            if labels is not chosen:
                self.mark_unprunable(labels, "shares a dimension with other channels")
        return chosen

    def fixed(self, labels: Labels) -> bool:
        """Whether all of these channels are known to be unprunable."""
        component = self.component_of()
        unprunable = np.zeros(self.count, dtype=bool)
        for found, _ in self.unprunable:
            unprunable[component[found]] = True
        return bool(unprunable[component[labels]].all())

    def is_weight(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on nothing but parameters and buffers."""
        return id(tensor) in self.names or id(tensor) in self.origins

    def make(self, tensor: Tensor, dims: Iterable[int]) -> None:
        """Note a tensor all of whose entries are alike along some dimensions, such as zeros."""
        wide = [dim for dim in dims if tensor.shape[dim] > 1]
        self.made.add(tensor, wide)
        if id(tensor) in self.made.labelled:
            labels = (labels_along(self.fresh(tensor.shape[dim]), dim, tensor.ndim) for dim in wide)
            self.set(tensor, [*self.labels(tensor), *labels])

    def fill(self, target: Tensor) -> None:
        """Note that channels are written into a tensor, or into a part of one, that carries none."""
        self.made.need(self._base(target))

    def _base(self, tensor: Tensor) -> int:
        return self.bases.get(id(tensor), id(tensor))

    def base_name(self, tensor: Tensor) -> str | None:
        """Name of the parameter or buffer that a tensor is, or is a view of."""
        return self.names.get(self._base(tensor))

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
                if tensor.is_complex():  # Convolutions of these are computed from real ones of their parts and sums.
                    self.mark_unprunable(labels, "is of a complex weight")
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

    def distinct(self, labels: Labels, dims: Iterable[int]) -> Labels:
        """The same labels without those of some dimensions along which all are coupled; some dimension stays."""
        for dim in sorted(dims):
            if len(support(labels)) > 1 and along(labels, dim) and self.coupled(labels, [dim]):
                labels = labels.take([0], axis=dim)
        return labels

    def vector(self, tensor: Tensor, dim: int, like: Labels | None = None) -> Labels | None:
        """The labels along one dimension as a vector, or None where it carries none.

        Labels that vary along other dimensions too are coupled along those. `like` are channels that the dimension
        counts: where it carries none because the forward makes the tensor, it does so the next time.
        """
        dim %= tensor.ndim
        found = [labels for labels in self.labels(tensor) if along(labels, dim)]
        if not found:
            if like is not None:
                self.made.need(id(tensor), like.size)
            return None
        labels = self._most_telling(found)
        return self.couple(labels, [d for d in range(labels.ndim) if d != dim]).reshape(-1)

    def meet(self, a: Labels | None, b: Labels | None) -> None:
        """Tie two vectors of labels; where only one side carries channels, they are unprunable."""
        if a is not None and b is not None:
            self.tie(a, b)
        else:
            self.mark_unprunable(a if b is None else b, "meets a dimension that carries no channels")

    def merge(
        self,
        operands: Sequence[Tensor],
        shapes: Sequence[Sequence[int]],
        rank: int,
        labels: Sequence[Iterable[Labels]] | None = None,
    ) -> list[Labels]:
        """Tie the operands of an elementwise operator and return the labels of its result.

        An operand that is wider than 1 where another carries channels, and carries none itself, makes them unprunable.

        Args:
            operands: The operands.
            shapes: Their shapes, with size 1 along dimensions in which they need not correspond.
            rank: Number of dimensions of the result.
            labels: Their labels; by default those of the tensors.
        """
        wide = [frozenset(rank - len(shape) + dim for dim in _wide(shape)) for shape in shapes]
        owned = [
            [a for a in (pad_rank(b, rank) for b in given) if support(a) <= dims]
            for given, dims in zip(labels or map(self.labels, operands), wide, strict=True)
        ]
        owned = [[self._as_fine_as(a, owned) for a in mine] for mine in owned]
        result: list[Labels] = []
        for i, mine in enumerate(owned):
            for j, theirs in enumerate(owned):
                if i != j:
                    alone = self._confront(mine, theirs, wide[j], id(operands[j]), tie=i < j)
                    # Labels of what is unprunable have no more to say.
                    mine = [a for a in mine if not any(a is b for b in alone)]
            result = _keep_finest(result, mine)
        return result

    def _as_fine_as(self, a: Labels, owned: Sequence[Sequence[Labels]]) -> Labels:
        """Labels that vary along several dimensions; only along the uncoupled ones unless all operands' labels do."""
        held = support(a)
        if len(held) == 1 or all(any(support(b) == held for b in theirs) for theirs in owned):
            return a
        return self.distinct(a, held)

    def _confront(
        self, mine: list[Labels], theirs: list[Labels], wide: frozenset[int], other: int, *, tie: bool
    ) -> list[Labels]:
        """Tie labellings of one tensor to those of another, of which the id is given; returns those without a partner.

        Those that share dimensions are tied; one by one where both tensors were reshaped in the same way.
        """
        alone = []
        supports = [support(b) for b in theirs]
        aligned = len(mine) > 1 and [support(a) for a in mine] == supports
        for k, a in enumerate(mine):
            own = support(a)
            if not own & wide:
                continue
            partners = [theirs[k]] if aligned else [b for b, dims in zip(theirs, supports, strict=True) if own & dims]
            for b in partners if tie else []:
                self.tie(a, b)
            if not partners:
                alone.append(a)
                self.mark_unprunable(a, "meets a tensor that is wider than 1 and carries no channels")
                for dim in own & wide:
                    self.made.need(other, a.shape[dim])
        return alone

    def multiply_adds(self, macs: int, labels: Iterable[Labels | None]) -> None:
        """Count multiply-adds of the current operator, which are proportional to the number of these channels."""
        self.seen.macs.append((macs, [found for found in labels if found is not None]))

    def split(self, labels: Labels, dims: Sequence[int]) -> int:
        """The dimension that shrinks where the current view splits channels, out of `dims`, the likeliest first."""
        place = len(self.passes) - 1, len(self.seen.operators)
        self.splits.append((place, labels.reshape(-1), dims))
        return self.adjustments.chosen.get(place, dims[0])

    # -- findings ------------------------------------------------------------------------------------------------

    @property
    def seen(self) -> Pass:
        """What has been found about the current pass so far."""
        return self.passes[-1]

    def attribute(self, name: str, labels: Labels | None, weight: Tensor | None = None) -> None:
        """Note that a number stored by the current module, or by the one that holds a weight, counts these channels."""
        held = None if weight is None else self.base_name(weight) or self.origins.get(id(weight))
        if labels is not None:
            self.attributes[held.rpartition(".")[0] if held else self.path, name] = labels.reshape(-1)

    def adjust(self) -> None:
        """Tie sizes that the forward takes to be equal."""
        for size, other in self.adjustments.equal.items():
            labels, others = self.along(size), self.along(other)
            if labels is not None and others is not None:
                # Of a multiple, each of the equal parts has the same channels.
                narrow, wide = sorted((labels, others), key=len)
                self.tie(wide.reshape(-1, len(narrow)), narrow.reshape(1, -1))

    def along(self, size: Size) -> Labels | None:
        """Labels along one dimension of an operator's output, or None where it carries none."""
        run, number = size.place
        _, found = self.passes[run].operators[number].outputs[size.output]
        return next((first_along(labels, size.dim) for labels in found if along(labels, size.dim)), None)

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
_HIDDEN_VIEWS = {
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.unsafe_split.Tensor,
    torch.ops.aten.unsafe_split_with_sizes.default,
}


def _layout(tensor: Tensor) -> list[tuple[int, int]]:
    """Sizes and strides of all dimensions, in any order."""
    return sorted(zip(tensor.shape, tensor.stride(), strict=True))


def _wide(shape: Sequence[int]) -> frozenset[int]:
    return frozenset(dim for dim, size in enumerate(shape) if size > 1)


def _keep_finest(result: list[Labels], new: list[Labels]) -> list[Labels]:
    """Add the labellings of another operand; of two that are tied, the one over more dimensions stays."""
    new = [labels for labels in new if not any(support(labels) <= support(known) for known in result)]
    return [*(known for known in result if not any(support(known) < support(labels) for labels in new)), *new]


def propagate(
    capture: ModelCapture, find_rule: Callable[[Call], Rule], adjustments: Adjustments | None = None
) -> Tracer:
    """Propagate channel labels through all operators of the captured passes."""
    labelled: frozenset[int] = frozenset()
    while True:
        tracer = Tracer(capture.meta_model.tensors, adjustments, labelled)
        for found in capture.passes:
            tracer.follow(found, find_rule)
        if tracer.made.needed <= labelled:
            tracer.adjustments.stale = False
            return tracer
        labelled |= tracer.made.needed
