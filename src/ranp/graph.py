"""What tracing finds out about a model: plain data, from which everything else is decided.

A *channel* is one index of a layer's output, together with everything that is coupled to it. Channels with the same
members form a *group*; channels of all groups are numbered through (`ChannelGraph.offsets`), so that scores, plans and
costs are ordinary arrays.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ranp.arguments import describe
from ranp.costs import Cost, CostModel, CostTable
from ranp.deprecation import RenamedAttribute, renamed_names
from ranp.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Member:
    """Where the channels of a group sit along one dimension of one parameter or buffer.

    Attributes:
        parameter: Name in the model's state dict; the first one where it has several.
        dim: The dimension.
        positions: Indices along `dim`, of shape (width, indices per channel).
        reads: Whether the parameter is a weight that reads the channels (and does not produce or scale them).
    """

    parameter: str
    dim: int
    positions: Ints
    reads: bool


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that can be kept or removed independently of each other, and that have the same members.

    Attributes:
        name: The first layer that produces the channels, with a suffix where one layer feeds several groups.
        width: Number of channels.
        members: The parameters that hold the channels.
    """

    name: str
    width: int
    members: tuple[Member, ...]


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer; its neurons are its output channels.

    A weight that connects other channels each time it is used, such as that of an autoencoder which decodes by the
    transposed weight of its encoder, makes several layers.

    Attributes:
        name: Path of the module (of the weight, where a module has several), with a suffix where that occurs again.
        weight: Name of its weight; where that is computed, of the largest parameter that it is computed from.
        bias: Name of its bias, or None.
        out_dim: The weight's dimension of output channels: 1 for transposed convolutions, else 0.
        blocks: Blocks of a grouped convolution; 1 for all others.
        macs: Multiply-adds of one traced forward pass.
        output_elements: Elements of its output in one traced forward pass.
        channels: For each neuron the graph-wide number of its channel, or -1 where it is always kept.
        inputs: For each input channel the graph-wide number of the channel that the layer reads there, or -1 where that
            is always kept, or passed on (by a depthwise convolution).
        final: Whether its neurons are outputs of the model.
        computed: Whether the weight is computed from parameters whenever the model runs.
    """

    name: str
    weight: str
    bias: str | None
    out_dim: int
    blocks: int
    macs: int
    output_elements: int
    channels: Ints
    inputs: Ints
    final: bool
    computed: bool = False

    @property
    def width(self) -> int:
        """Number of neurons."""
        return len(self.channels)

    @property
    def prunable(self) -> bool:
        """Whether any neuron may be removed."""
        return bool((self.channels >= 0).any())


@dataclass(frozen=True, eq=False)
class SizeAttribute:
    """A size that a module holds besides its parameters, as a function of the kept widths.

    Attributes:
        module: Path of the module.
        name: Attribute, such as `out_channels`, or `normalized_shape[0]` for an entry of a tuple.
        axis: Row of `CostTable.axes` whose size is the attribute's value.
    """

    module: str
    name: str
    axis: int


@dataclass(frozen=True, eq=False)
class Rescale:
    """A part of a parameter to rescale, because the forward multiplies its product by a number that depends on a width.

    Attributes:
        parameter: Its name.
        dim: The dimension.
        positions: Indices along `dim`, of shape (indices,).
        axis: Row of `CostTable.axes` on whose size the number depends.
        exponent: The part is multiplied by (size / full size) ** exponent.
    """

    parameter: str
    dim: int
    positions: Ints
    axis: int
    exponent: float


@dataclass(frozen=True)
class Unprunable:
    """Channels that cannot be pruned, and why.

    Attributes:
        path: Module in whose forward the operator ran; empty for the model itself.
        operator: The operator, or `output` for the model's outputs.
        reason: Why its channels cannot be removed.
        channels: How many channels of layers it keeps from being removed.
        macs_share: Share of the model's multiply-adds that belongs to those channels' layers (0 to 1).
    """

    path: str
    operator: str
    reason: str
    channels: int
    macs_share: float


@dataclass(frozen=True)
class Node:
    """A step of the forward pass in eval mode, as far as it makes channels or brings them together.

    Attributes:
        kind: `input`, `layer`, `join` (an operator on several activations, such as a sum) or `output`.
        name: Of the layer or the operator; empty for inputs and outputs.
        shape: Of its (first) result.
        sources: Numbers of the nodes whose results it takes; all of them are earlier ones.
    """

    kind: Literal["input", "layer", "join", "output"]
    name: str
    shape: tuple[int, ...]
    sources: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """Everything that scoring, costing, allocation and surgery need to know about a model.

    Attributes:
        groups: Channels that may be removed.
        layers: Convolutions and linear layers in the order in which they ran.
        attributes: Sizes to update in modules.
        costs: Formulas of the kept widths.
        unprunable: What cannot be pruned, and why.
        shapes: Name and shape of every parameter and buffer (the model's fingerprint).
        nodes: How results of layers reach other layers; a layer that runs several times has a node for each.
        has_cross_channel_norm: Whether an operator (such as a layer norm) mixes removable channels, so that removing
            one changes the values of others.
        rescales: Parts of parameters to rescale.
        untraced_training_mode: Why training mode could not be traced; empty if it could. Otherwise, what runs only in
            training mode was not seen, and may not fit the pruned model.
    """

    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]
    attributes: tuple[SizeAttribute, ...]
    costs: CostTable
    unprunable: tuple[Unprunable, ...]
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    nodes: tuple[Node, ...] = field(repr=False)
    has_cross_channel_norm: bool
    untraced_training_mode: str = ""
    rescales: tuple[Rescale, ...] = ()
    frozen = RenamedAttribute("unprunable")
    mixes = RenamedAttribute("has_cross_channel_norm")
    missed = RenamedAttribute("untraced_training_mode")

    @cached_property
    def widths(self) -> Ints:
        """Full width of every group, of shape (groups,)."""
        return np.array([group.width for group in self.groups], dtype=np.int64)

    @cached_property
    def offsets(self) -> Ints:
        """Number of each group's first channel, and at the end the number of all channels: shape (groups + 1,)."""
        return np.concatenate([[0], np.cumsum(self.widths)]).astype(np.int64)

    @cached_property
    def group_of(self) -> Ints:
        """For every channel the number of its group, of shape (channels,)."""
        return np.repeat(np.arange(len(self.groups)), self.widths)

    @cached_property
    def neurons(self) -> Ints:
        """For every channel the number of layer neurons that it stands for, of shape (channels,)."""
        channels = np.concatenate([np.zeros(0, dtype=np.int64), *(layer.channels for layer in self.layers)])
        return np.bincount(channels[channels >= 0], minlength=self.offsets[-1])

    @cached_property
    def fingerprint(self) -> str:
        """A text that is the same for networks with the same parameters and costs at the same input size."""
        table = self.costs
        digest = hashlib.sha256(repr((sorted(self.shapes.items()), table.outputs)).encode())
        for array in (table.axes, table.macs.factors, table.macs.axes):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def cost(self, widths: npt.ArrayLike | None = None) -> Cost:
        """What the network costs at given widths of its groups (by default the full ones), of shape (groups,).

        Counts are exact, by formula, and take microseconds. An `InputError` refuses widths of another shape.
        """
        given = self.widths if widths is None else self.as_widths(widths)
        return Cost(**{entry.name: self.amount(entry.name, given) for entry in fields(Cost)})

    def amount(self, name: str, widths: Ints) -> Any:
        """One field of `cost`, by name; None where nothing predicts it."""
        if name == "neurons":
            per_channel, fixed = self._neuron_counts
            return int(per_channel @ widths) + fixed
        if name in self.costs.models:
            return self.costs.models[name].evaluate(widths)
        terms = getattr(self.costs, name, None)
        return None if terms is None else terms.evaluate(self.costs.axes_at(widths))

    def with_costs(self, **models: CostModel) -> "ChannelGraph":
        """The same graph with models of further fields of `Cost`: `step_seconds`, `train_bytes`.

        Raises:
            InputError: A model was measured for another network or input size.
        """
        for name, model in models.items():
            if getattr(model, "network", self.fingerprint) != self.fingerprint:
                problem = f"the {type(model).__name__} is that of another network or input size"
                raise InputError(f"with_costs: {name}", problem, hint="measure it again, for this graph")
        return replace(self, costs=replace(self.costs, models={**self.costs.models, **models}))

    def as_widths(self, widths: npt.ArrayLike) -> Ints:
        """Widths of all groups as an array; an `InputError` refuses those of another shape."""
        with suppress(TypeError, ValueError, RuntimeError):  # of numpy, and of tensors that are no arrays
            found = np.asarray(widths)
            if found.shape == self.widths.shape and found.dtype.kind in "iuf" and (found == np.floor(found)).all():
                return found.astype(np.int64)
        raise InputError("widths", got=describe(widths), expected=f"one integer for each of {len(self.groups)} groups")

    @cached_property
    def _neuron_counts(self) -> tuple[Ints, int]:
        """Neurons for each channel of every group, of shape (groups,), and neurons that are always kept."""
        fixed = sum(int((layer.channels < 0).sum()) for layer in self.layers)
        return self.neurons[self.offsets[:-1]], fixed


if not TYPE_CHECKING:
    __getattr__ = renamed_names(
        __name__,
        {
            "Allocation": "ranp.costs.OutputBytes",
            "Attribute": "SizeAttribute",
            "Frozen": "Unprunable",
            "Terms": "ranp.costs.Terms",
        },
    )
