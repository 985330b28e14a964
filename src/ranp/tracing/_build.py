"""Building a ChannelGraph from propagated labels: coupled channels, groups, layers and cost formulas."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from ranp.costs import CostTable, OutputBytes, Terms
from ranp.graph import ChannelGraph, Group, Ints, Layer, Member, SizeAttribute, Unprunable
from ranp.tracing._labels import Axis, Labels, support
from ranp.tracing._meta_model import MetaModel
from ranp.tracing._propagate import LayerCall, Tracer


@dataclass(frozen=True)
class Prediction:
    """Shapes of an operator's outputs as functions of the widths: each size is a factor times an axis."""

    path: str
    operator: str
    shapes: list[list[tuple[int, int]]]

    def at(self, sizes: Sequence[int]) -> list[tuple[int, ...]]:
        """The shapes, given the size of every axis."""
        return [tuple(factor * sizes[axis] for factor, axis in shape) for shape in self.shapes]


@dataclass(frozen=True)
class Build:
    """A graph and what is needed to try it out at other widths."""

    graph: ChannelGraph
    predictions: tuple[tuple[Prediction, ...], ...]  # for each pass, one per operator
    splits: tuple[frozenset[int], ...]  # for each view that splits channels into blocks, the groups that it splits


def build(meta_model: MetaModel, tracer: Tracer, *, predict: bool = True) -> Build:
    """Assemble the graph; the sizes of predicted shapes become axes of it."""
    builder = _Builder(meta_model, tracer)
    predictions = builder.predictions() if predict else ()
    return Build(builder.graph(), predictions, builder.splits())


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
            key = call.weight, channels(call.inputs.labels), channels(call.out)
            if known := found.get(key):
                elements = known.output_elements + call.output_elements
                call = replace(known, macs=known.macs + call.macs, output_elements=elements)
            found[key] = call
        return list(found.values())

    def _components(self, found: Iterable[Labels | None]) -> Labels:
        arrays = [labels.reshape(-1) for labels in found if labels is not None]
        return np.unique(self.component[np.concatenate(arrays)]) if arrays else np.zeros(0, dtype=np.int64)

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
        for axes in (*(axes for _, axes in macs), *(entry.axes for entry in activations)):
            for axis in axes:
                if axis.labels is not None and (key := axis.labels.tobytes()) not in seen:
                    seen.add(key)
                    yield axis.labels

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
        return self.numbers[key]

    def terms(self, products: Iterable[tuple[int, Sequence[Axis]]]) -> Terms:
        """Products of axes, with like terms summed; axes of constant size go into the factor."""
        collected: dict[tuple[int, ...], int] = defaultdict(int)
        for given, axes in products:
            factor, indices = self._term(given, axes)
            collected[indices] += factor
        longest = max((len(key) for key in collected), default=0) or 1
        table = [list(key) + [0] * (longest - len(key)) for key in collected]
        factors = np.array(list(collected.values()), dtype=np.int64)
        return Terms(factors, np.array(table, dtype=np.int64).reshape(-1, longest))

    def _term(self, factor: int, axes: Sequence[Axis]) -> tuple[int, tuple[int, ...]]:
        """One product: its constant factor, and the axes that may shrink."""
        indices = []
        for axis in axes:
            index = None if axis.labels is None else self.axis(axis.labels)
            if index is None or not self.shrinks[index]:
                factor *= axis.size
            else:
                indices.append(index)
        return factor, tuple(sorted(indices))

    def formulas(self) -> tuple[Terms, Terms, Terms, tuple[OutputBytes, ...]]:
        """Multiply-adds, parameters and activation bytes, these also operator by operator."""
        by_tensor = defaultdict(list)
        for source in self.tracer.sources:
            by_tensor[source.tensor].append(Axis(source.labels, source.size))
        params = [
            (1, by_tensor[name]) if name in by_tensor else (parameter.numel(), [])
            for name, parameter in self.meta_model.tensors.items()
            if isinstance(parameter, nn.Parameter) and self.tracer.names[id(parameter)] == name
        ]
        entries = self.costs.activations
        terms = [self.terms(given) for given in (self.costs.macs, params, ((e.bytes, e.axes) for e in entries))]
        outputs = (OutputBytes(entry.path, entry.operator, *self._term(entry.bytes, entry.axes)) for entry in entries)
        return terms[0], terms[1], terms[2], tuple(outputs)

    def attributes(self) -> Iterable[SizeAttribute]:
        """Module attributes that change with the widths."""
        for (path, name), labels in self.tracer.attributes.items():
            index = self.axis(labels)
            held = _attribute(self.meta_model.modules[path], name)
            if self.shrinks[index] and held == labels.size:
                yield SizeAttribute(path, name, index)

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
                inputs=self._channels(call.inputs.labels, call.inputs.size),
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
                Prediction(entry.path, entry.name, [self._shape(*output) for output in entry.outputs])
                for entry in found.operators
            )
            for found in self.tracer.passes
        )

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
            first = labels[tuple(slice(None) if d == dim else 0 for d in range(labels.ndim))]
            component = self.component[first]
            # Where a view has merged dimensions, all but one of them keep their size.
            if (component != component[0]).any() and (self.group[component] >= 0).any():
                yield dim, self.axis(first)

    def splits(self) -> tuple[frozenset[int], ...]:
        """For each view that splits channels, their groups."""
        found = [self.group[self.component[labels]] for labels in self.tracer.splits]
        return tuple(frozenset(group[group >= 0].tolist()) for group in found)

    def graph(self) -> ChannelGraph:
        """All of it."""
        layers = self.layers()
        groups = self.groups(self._group_names(layers))
        macs, params, activations, outputs = self.formulas()
        attributes = tuple(self.attributes())
        return ChannelGraph(
            groups=groups,
            layers=layers,
            attributes=attributes,
            costs=CostTable(np.stack(self.rows), macs, params, activations, outputs),
            unprunable=self.unprunable(),
            shapes={name: tuple(tensor.shape) for name, tensor in self.meta_model.tensors.items()},
            nodes=tuple(replace(node, name=layer_name(node.name)) for node in self.costs.nodes),
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


def _attribute(module: nn.Module, name: str) -> object:
    """The value of an attribute, or of an entry of a tuple: `normalized_shape[0]`."""
    base, _, index = name.partition("[")
    value = getattr(module, base, None)
    if index and isinstance(value, tuple):
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
