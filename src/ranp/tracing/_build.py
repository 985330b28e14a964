"""Building a ChannelGraph from propagated labels: coupled channels, groups, layers and cost formulas."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from ranp.costs import CostTable, OutputBytes, Terms
from ranp.graph import ChannelGraph, Group, Ints, Layer, Member, Rescale, SizeAttribute, Unprunable
from ranp.module_utils import all_tensors
from ranp.tracing._adjustments import Place
from ranp.tracing._capture import Call
from ranp.tracing._labels import Labels, along, first_along, support
from ranp.tracing._meta_model import MetaModel
from ranp.tracing._propagate import LayerCall, Tracer


@dataclass(frozen=True)
class Prediction:
    """Shapes of an operator's outputs as functions of the widths: each size is a factor times an axis.

    So is where a slice of channels begins.
    """

    path: str
    operator: str
    shapes: list[list[tuple[int, int]]]
    numbers: list[float]
    start: int | None = None  # the axis
    # The axis that the numbers follow, its full size, and the power of its ratio that they change by.
    factor: tuple[int, int, float] | None = None

    def numbers_at(self, sizes: Sequence[int]) -> list[float]:
        """The numbers, given the size of every axis."""
        if self.factor is None:
            return self.numbers
        axis, full, exponent = self.factor
        return [number * (sizes[axis] / full) ** exponent for number in self.numbers]

    def at(self, sizes: Sequence[int]) -> list[tuple[int, ...]]:
        """The shapes, given the size of every axis."""
        return [tuple(factor * sizes[axis] for factor, axis in shape) for shape in self.shapes]


@dataclass(frozen=True)
class Build:
    """A graph and what is needed to try it out at other widths."""

    graph: ChannelGraph
    predictions: tuple[tuple[Prediction, ...], ...]  # for each pass, one per operator
    splits: Mapping[Place, tuple[Sequence[int], bool]]  # see `_Builder.splits`
    group_of: Ints  # the group of each label, or -1


def build(meta_model: MetaModel, tracer: Tracer, *, predict: bool = True) -> Build:
    """Assemble the graph; the sizes of predicted shapes become axes of it."""
    builder = _Builder(meta_model, tracer)
    predictions = builder.predictions() if predict else ()
    return Build(builder.graph(), predictions, builder.splits(), builder.group[builder.component])


class _Builder:
    """Numbers the removable channels and expresses everything else in terms of them."""

    def __init__(self, meta_model: MetaModel, tracer: Tracer) -> None:
        self.meta_model, self.tracer = meta_model, tracer
        self.component = tracer.component_of()
        # A pass in training mode ties channels too, but the costs are those of the first pass, in eval mode.
        self.costs = tracer.passes[0]
        self.calls = self._distinct(self.costs.layers)
        self.axes: dict[bytes, int] = {}  # by labels
        self.by_groups: dict[bytes, int] = {}  # by the labels' groups
        self.numbers: dict[bytes, int] = {}  # by row
        self.rows: list[Ints] = []
        self.varying: dict[int, list[tuple[int, int]]] = {}  # by the id of labels
        self.shrinks: list[bool] = []  # which rows depend on widths
        self.sizes: list[int] = []  # of each row, at full width
        self.primitives: dict[int, int] = {}  # by row, the row divided by its greatest common factor
        self._number_channels()
        self._number(np.append(np.zeros(len(self.widths)), 1).astype(np.int64))  # row 0: the constant 1

    def _number_channels(self) -> None:
        """Find the removable components and give those with the same members consecutive numbers.

        `self.group` and `self.channel` map a component to its group and to its graph-wide number, or -1 if unprunable.
        """
        count = len(self.component)
        produced = self._components(call.out for call in self.calls)
        fixed = self._components(labels for labels, _ in self.tracer.unprunable)
        removable = np.zeros(count, dtype=bool)
        removable[produced] = True
        removable[fixed] = False
        roots = np.flatnonzero(removable)
        signature = self._signatures(roots)
        _, first, kind = np.unique(signature, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))[kind.reshape(-1)]
        order = np.argsort(rank, kind="stable")
        self.group = np.full(count, -1, dtype=np.int64)
        self.channel = np.full(count, -1, dtype=np.int64)
        self.widths = np.bincount(rank, minlength=0).astype(np.int64)
        self.group[roots[order]] = rank[order]
        self.channel[roots[order]] = np.arange(len(roots))
        self.offsets = np.concatenate([[0], np.cumsum(self.widths)])

    def _distinct(self, calls: Iterable[LayerCall]) -> list[LayerCall]:
        """One entry for each weight and the channels that it connects; one that runs several times costs as often."""
        found: dict[tuple[str, bytes, bytes], LayerCall] = {}

        def channels(labels: Labels | None) -> bytes:
            return b"" if labels is None else self.component[labels].tobytes()

        for call in calls:
            key = call.weight, channels(call.inputs), channels(call.out)
            if known := found.get(key):
                elements = known.output_elements + call.output_elements
                call = replace(known, macs=known.macs + call.macs, output_elements=elements)
            found[key] = call
        return list(found.values())

    def _components(self, found: Iterable[Labels | None]) -> Labels:
        met = np.zeros(len(self.component), dtype=bool)
        for labels in found:
            if labels is not None:
                met[self.component[labels]] = True
        return np.flatnonzero(met)

    def _signatures(self, roots: Labels) -> Labels:
        """A number for each component that says how often it occurs in each parameter dimension and each axis."""
        random = np.random.default_rng(0)
        total = np.zeros(len(self.component), dtype=np.int64)
        with np.errstate(over="ignore"):
            for labels in self._occurrences():
                weight = random.integers(1, 2**62)
                np.add.at(total, self.component[labels], weight)
        return total[roots]

    def _occurrences(self) -> Iterable[Labels]:
        for source in self.tracer.sources:
            yield source.labels
        seen: set[bytes] = set()
        macs, activations = self.costs.macs, self.costs.activations
        for found in (*(found for _, found in macs), *(entry.labels for entry in activations)):
            for labels in found:
                if (key := labels.tobytes()) not in seen:
                    seen.add(key)
                    yield labels.reshape(-1)
        # A slice or a split may cut between channels that have everything else in common.
        for call in (call for capture in self.tracer.captures for call in capture.calls):
            for labels in (*(_cut(self.tracer, call) or ()), *_parts(self.tracer, call)):
                if (key := labels.tobytes()) not in seen:
                    seen.add(key)
                    yield labels

    # -- cost formulas -------------------------------------------------------------------------------------------

    def axis(self, labels: Labels) -> int:
        """Number of the axis with these labels, as a linear form over (widths, 1)."""
        given = labels.tobytes()
        if given not in self.axes:
            groups = self.group[self.component[labels]]
            held = groups.tobytes()
            if held not in self.by_groups:
                counts = np.bincount(groups[groups >= 0], minlength=len(self.widths))
                row = np.append(counts // np.maximum(self.widths, 1), np.sum(groups < 0)).astype(np.int64)
                self.by_groups[held] = self._number(row)
            self.axes[given] = self.by_groups[held]
        return self.axes[given]

    def _number(self, row: Ints) -> int:
        """Number of the axis that is this linear form."""
        key = row.tobytes()
        if key not in self.numbers:
            self.numbers[key] = len(self.rows)
            self.rows.append(row)
            self.shrinks.append(bool(row[:-1].any()))
            self.sizes.append(int(row[:-1] @ self.widths + row[-1]))
        return self.numbers[key]

    def terms(self, amounts: Iterable[tuple[int, Sequence[Labels]]]) -> Terms:
        """Amounts that are proportional to the number of some labels, with like terms summed."""
        collected: dict[tuple[int, ...], int] = defaultdict(int)
        for full, labellings in amounts:
            factor, indices = self._term(full, labellings)
            collected[indices] += factor
        longest = max((len(key) for key in collected), default=0) or 1
        table = [list(key) + [0] * (longest - len(key)) for key in collected]
        factors = np.array(list(collected.values()), dtype=np.int64)
        return Terms(factors, np.array(table, dtype=np.int64).reshape(-1, longest))

    def _term(self, full: int, labellings: Sequence[Labels]) -> tuple[int, tuple[int, ...]]:
        """An amount as a constant factor times the axes that may shrink.

        Axes are divided by their common factors. So the amount is a multiple of them also where a view of a weight has
        merged two dimensions, and labels them together: each of the two labels occurs once for every other.
        """
        indices = []
        for labels in labellings:
            index = self.axis(labels)
            if self.shrinks[index]:
                indices.append(self._primitive(index))
                full //= self.sizes[indices[-1]]
        return full, tuple(sorted(indices))

    def _primitive(self, index: int) -> int:
        """Number of an axis divided by its greatest common factor."""
        if index not in self.primitives:
            row = self.rows[index]
            self.primitives[index] = self._number(row // np.gcd.reduce(row))
        return self.primitives[index]

    def formulas(self) -> tuple[Terms, Terms, Terms, tuple[OutputBytes, ...]]:
        """Multiply-adds, parameters and activation bytes, these also operator by operator."""
        by_tensor = defaultdict(list)
        for source in self.tracer.sources:
            by_tensor[source.tensor].append(source.labels)
        params = [
            (parameter.numel(), by_tensor[name])
            for name, parameter in self.meta_model.tensors.items()
            if isinstance(parameter, nn.Parameter) and self.tracer.names[id(parameter)] == name
        ]
        entries = self.costs.activations
        terms = [self.terms(given) for given in (self.costs.macs, params, ((e.bytes, e.labels) for e in entries))]
        outputs = (OutputBytes(entry.path, entry.operator, *self._term(entry.bytes, entry.labels)) for entry in entries)
        return terms[0], terms[1], terms[2], tuple(outputs)

    def attributes(self) -> Iterable[SizeAttribute]:
        """Module attributes that change with the widths."""
        for (path, name), labels in self.tracer.attributes.items():
            index = self.axis(labels)
            held = _attribute(self.meta_model.modules[path], name)
            if self.shrinks[index] and held == labels.size:
                yield SizeAttribute(path, name, index)

    def rescales(self) -> Iterable[Rescale]:
        """Weights whose scale changes with the widths."""
        for entry in self.tracer.rescalings:
            index = self.axis(entry.labels)
            if self.shrinks[index]:
                yield Rescale(entry.parameter, entry.dim, entry.positions, index, entry.exponent)

    # -- groups and layers ---------------------------------------------------------------------------------------

    def groups(self, names: Sequence[str]) -> tuple[Group, ...]:
        """All groups, with the positions of their channels in every parameter and buffer."""
        reading = {source for labels in self.tracer.reads if (source := self.tracer.source(labels))}
        members: dict[int, list[Member]] = defaultdict(list)
        known: dict[bytes, list[tuple[int, Ints]]] = {}
        for source in self.tracer.sources:
            numbers = self.numbers_of(source.labels)
            # A norm has four tensors over the same channels.
            key = numbers.tobytes()
            if key not in known:
                known[key] = list(self._positions(numbers))
            for group, positions in known[key]:
                members[group].append(Member(source.tensor, source.dim, positions, source in reading))
        return tuple(
            Group(name, int(width), tuple(members[index]))
            for index, (name, width) in enumerate(zip(names, self.widths, strict=True))
        )

    def _group_names(self, layers: Sequence[Layer]) -> list[str]:
        """Name each group by the first layer that produces it; a suffix distinguishes several groups of one layer."""
        group_of = np.repeat(np.arange(len(self.widths)), self.widths)
        producer: dict[int, str] = {}
        for layer in layers:
            for group in np.unique(group_of[layer.channels[layer.channels >= 0]]).tolist():
                producer.setdefault(group, layer.name)
        return _numbered(producer[group] for group in range(len(self.widths)))

    def _positions(self, numbers: Ints) -> Iterable[tuple[int, Ints]]:
        """For each group the positions of its channels in a dimension, of shape (width, times)."""
        order = np.argsort(numbers, kind="stable")
        ends = np.searchsorted(numbers[order], self.offsets)
        for group in np.flatnonzero(np.diff(ends)).tolist():
            yield group, order[ends[group] : ends[group + 1]].reshape(self.widths[group], -1)

    def layers(self) -> tuple[Layer, ...]:
        """All layers, named by their weights."""
        final = set(self._components(self.tracer.output_labels).tolist())
        names = _numbered(layer_name(call.weight) for call in self.calls)
        return tuple(
            Layer(
                name=name,
                weight=call.weight,
                bias=call.bias,
                out_dim=call.out_dim,
                blocks=call.blocks,
                macs=call.macs,
                output_elements=call.output_elements,
                channels=self._channels(call.out, call.width),
                inputs=self._channels(call.inputs, call.input_width),
                final=call.out is None or bool(final & set(self.component[call.out].tolist())),
                computed=call.computed,
            )
            for name, call in zip(names, self.calls, strict=True)
        )

    def _channels(self, labels: Labels | None, size: int) -> Ints:
        return np.full(size, -1, dtype=np.int64) if labels is None else self.numbers_of(labels)

    def numbers_of(self, labels: Labels) -> Ints:
        """Graph-wide numbers of channels, -1 for unprunable ones."""
        return self.channel[self.component[labels]]

    def unprunable(self) -> tuple[Unprunable, ...]:
        """Layers' channels that cannot be pruned, by the first operator that required it."""
        notes = [note for _, note in self.tracer.unprunable]
        first = np.full(len(self.component), len(notes))
        for index in reversed(range(len(notes))):
            first[self.component[self.tracer.unprunable[index][0]]] = index
        total = max(sum(call.macs for call in self.calls), 1)
        channels, macs = np.zeros(len(notes), dtype=np.int64), np.zeros(len(notes))
        for call in self.calls:
            if call.out is not None:
                counts = np.bincount(first[self.component[call.out]], minlength=len(notes) + 1)[:-1]
                channels += counts
                macs += counts * (call.macs / call.width / total)
        return _merge_notes(
            Unprunable(note.path, note.operator, note.reason, int(count), float(share))
            for note, count, share in zip(notes, channels, macs, strict=True)
            if count
        )

    def predictions(self) -> tuple[tuple[Prediction, ...], ...]:
        """For each pass the shapes of every operator's outputs, as functions of the widths."""
        return tuple(
            tuple(
                Prediction(
                    entry.path,
                    entry.name,
                    [self._shape(*output) for output in entry.outputs],
                    entry.numbers,
                    self._start(call),
                    self._factor((run, number)),
                )
                for number, (entry, call) in enumerate(zip(found.operators, capture.calls, strict=True))
            )
            for run, (found, capture) in enumerate(zip(self.tracer.passes, self.tracer.captures, strict=True))
        )

    def _factor(self, place: Place) -> tuple[int, int, float] | None:
        factor = self.tracer.adjustments.factors.get(place)
        labels = self.tracer.along(factor.size) if factor else None
        return None if factor is None or labels is None else (self.axis(labels), len(labels), factor.exponent)

    def _start(self, call: Call) -> int | None:
        cut = _cut(self.tracer, call)
        return None if cut is None else self.axis(cut[0])

    def _shape(self, shape: Sequence[int], labellings: Sequence[Labels]) -> list[tuple[int, int]]:
        sizes = [(size, 0) for size in shape]
        for labels in labellings:
            # Operators pass labels on as they are, so most have been looked at before.
            if id(labels) not in self.varying:
                self.varying[id(labels)] = list(self._varying(labels))
            for dim, axis in self.varying[id(labels)]:
                sizes[dim] = (1, axis)
        return sizes

    def _varying(self, labels: Labels) -> Iterable[tuple[int, int]]:
        """Dimensions whose size depends on the widths, and the axes that they are."""
        for dim in support(labels):
            first = first_along(labels, dim)
            component = self.component[first]
            # Where a view has merged dimensions, all but one of them keep their size.
            if (component != component[0]).any() and (self.group[component] >= 0).any():
                yield dim, self.axis(first)

    def splits(self) -> dict[Place, tuple[Sequence[int], bool]]:
        """Views that split channels: the dimensions, and whether these are all coupled then."""
        alone = np.append(self.widths == 1, False)  # the last for group -1: unprunable channels
        return {
            place: (dims, bool(alone[self.group[self.component[labels]]].any()))
            for place, labels, dims in self.tracer.splits
        }

    def graph(self) -> ChannelGraph:
        """All of it."""
        layers = self.layers()
        groups = self.groups(self._group_names(layers))
        # What a forward remembers may be in ordinary attributes, too: of those, only what is sliced has to be the same.
        sliced = {member.parameter for group in groups for member in group.members}
        held = sliced.union(all_tensors(self.meta_model.model))
        macs, params, activations, outputs = self.formulas()
        attributes, rescales = tuple(self.attributes()), tuple(self.rescales())
        return ChannelGraph(
            groups=groups,
            layers=layers,
            attributes=attributes,
            costs=CostTable(np.stack(self.rows), macs, params, activations, outputs),
            unprunable=self.unprunable(),
            shapes={name: tuple(tensor.shape) for name, tensor in self.meta_model.tensors.items() if name in held},
            nodes=tuple(replace(node, name=layer_name(node.name)) for node in self.costs.nodes),
            rescales=rescales,
            has_cross_channel_norm=any((self.numbers_of(labels) >= 0).any() for labels in self.tracer.mixed),
        )


def layer_name(weight: str) -> str:
    """A layer's name: the path of its module, or of its weight where that is not called `weight`.

    Example:
        >>> layer_name("down.conv.weight"), layer_name("conv.parametrizations.weight.original1"), layer_name("kernel")
        ('down.conv', 'conv', 'kernel')
    """
    return re.sub(r"(\.parametrizations)?\.weight(_v|_orig|\.original\d?)?$", "", weight)


def _numbered(names: Iterable[str]) -> list[str]:
    """Names of which those that occur again have a suffix.

    Example:
        >>> _numbered(["a", "b", "a"])
        ['a', 'b', 'a#2']
    """
    used = defaultdict[str, int](int)
    found = []
    for name in names:
        used[name] += 1
        found.append(name if used[name] == 1 else f"{name}#{used[name]}")
    return found


def _cut(tracer: Tracer, call: Call) -> tuple[Labels, Labels] | None:
    """The channels before a slice and those within it; None for other operators, and where it cuts no channels."""
    if call.name != "slice":
        return None
    source, dim = call.tensors[0], int(call.arg(1, "dim", 0)) % call.tensors[0].ndim
    start, stop, _ = slice(call.arg(2, "start"), call.arg(3, "end")).indices(source.shape[dim])
    for labels in tracer.labels(source):
        if along(labels, dim):
            vector = labels[tuple(slice(None) if d == dim else 0 for d in range(labels.ndim))]
            return vector[:start], vector[start:stop]
    return None


def _parts(tracer: Tracer, call: Call) -> Iterable[Labels]:
    """The channels of each part of a split; none for other operators."""
    if "split" in call.name:
        for part in call.outputs:
            yield from (first_along(labels, dim) for labels in tracer.labels(part) for dim in support(labels))


def _attribute(module: nn.Module, name: str) -> object:
    """The value of an attribute, or of an entry of a list or tuple: `normalized_shape[0]`."""
    base, _, index = name.partition("[")
    value = vars(module).get(base)
    if index and isinstance(value, (list, tuple)):
        value = value[int(index.rstrip("]"))]
    return value


def _merge_notes(notes: Iterable[Unprunable]) -> tuple[Unprunable, ...]:
    merged: dict[tuple[str, str, str], Unprunable] = {}
    for note in notes:
        key = (note.path, note.operator, note.reason)
        if known := merged.get(key):
            channels, share = known.channels + note.channels, known.macs_share + note.macs_share
            note = replace(known, channels=channels, macs_share=share)
        merged[key] = note
    return tuple(merged.values())
