"""Importance by gates: the gradient of a gate on every channel, without weight gradients."""

from collections.abc import Mapping
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ranp.errors import InputError
from ranp.graph import ChannelGraph, Floats, Layer

# Functions that read channels, and the dimension along which they do, counted from the end.
_READERS: Mapping[Any, int] = {
    F.conv1d: -2,
    F.conv2d: -3,
    F.conv3d: -4,
    F.conv_transpose1d: -2,
    F.conv_transpose2d: -3,
    F.conv_transpose3d: -4,
    F.linear: -1,
    torch.matmul: -1,
    Tensor.matmul: -1,
    Tensor.__matmul__: -1,
}


# The function of torch, which hands itself to a mode, without its look for one: so the layers in it can be seen.
_multi_head_attention = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda tensors: False},
    "multi_head_attention_forward",
    F.multi_head_attention_forward.__defaults__,
)


class NeuronImportance(TorchFunctionMode):
    """Importance of every neuron by a gate on its channel (Xu et al., RANP, 3DV 2020).

    With x = c * phi(h), s = |dL/dc| at c = 1, summed over batch and space and averaged over batches before the absolute
    value is taken. The gates are on the inputs of all layers that read the channel, hence after its norm and
    activation; the gradients of one channel's gates add up. No layer needs a weight gradient.

    Layers that produce a channel together share its importance equally. Neurons that no layer reads (the model's
    outputs, queries and keys of attention) have their gates on the outputs of their layer.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        super().__init__()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        reading = {m.parameter for group in graph.groups for m in group.members if m.reads}
        unread = {layer.weight: layer for layer in graph.layers if _unread(graph, layer).any()}
        self.graph = graph
        self.trained: set[str] = set()
        self.totals: dict[str, Tensor] = {}
        self._reading = {id(parameters[name]): name for name in reading}
        self._unread = {id(parameters[name]): layer for name, layer in unread.items()}
        self._gates: dict[str, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = list(args), dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            with self:
                return _multi_head_attention(*args, **kwargs)
        dim = _READERS.get(func)
        if dim is None:
            return func(*args, **kwargs)
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        if name := self._reading.get(id(weight)):
            source = args.pop(0) if args else kwargs.pop("input")
            args.insert(0, _Gate.apply(source, self._gate(name, source, dim), dim))
        out = func(*args, **kwargs)
        if layer := self._unread.get(id(weight)):
            # A real product, not a view: the model may go on to change its layer's output in place.
            shape = [-1 if d == dim % out.ndim else 1 for d in range(out.ndim)]
            out = out * self._gate(_output_of(layer), out, dim).reshape(shape)
        return out

    def _gate(self, name: str, like: Tensor, dim: int) -> Tensor:
        if name not in self._gates:
            self._gates[name] = torch.ones(like.shape[dim], dtype=like.dtype, device=like.device, requires_grad=True)
        return self._gates[name]

    def check_forward(self) -> None:
        """Refuse a model with a weight that reads channels but was not seen with its input."""
        missed = sorted(name for name in self._reading.values() if name not in self._gates)
        if missed:
            problem = "no convolution, linear layer or matmul of torch was called with this weight as it is"
            raise InputError(f"importance='neuron' at {missed[0]}", problem, hint="use importance='parameter'")

    def add(self, loss: Tensor) -> None:
        """Run the backward pass and add the gradients of the gates to the sums."""
        # Not `loss.backward()`, which modes may override and which therefore runs without them: a checkpoint inside the
        # model runs its forward once more, and needs the gates.
        run = torch.autograd.Variable._execution_engine.run_backward
        run((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)
        for name, gate in self._gates.items():
            if gate.grad is not None:
                gradient, gate.grad = gate.grad.double(), None
                self.totals[name] = self.totals.get(name, torch.zeros_like(gradient)) + gradient

    def importance(self, totals: Mapping[str, Tensor], batches: int) -> dict[str, Floats]:
        """Absolute value of the average over batches, for the neurons of each layer."""
        signed = {name: total.cpu().numpy() / batches for name, total in totals.items()}
        channels = _by_channel(self.graph, signed)
        return {layer.name: _by_layer(self.graph, layer, channels, signed) for layer in self.graph.layers}


class _Gate(torch.autograd.Function):
    """Multiplies by ones: the forward is a view, the backward gives the gradient of the ones."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, ones: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(source)
        ctx.dim = dim
        return source.view_as(source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (source,), (gradient,) = ctx.saved_tensors, gradients
        dim = ctx.dim % source.ndim
        sums = (source * gradient).sum([d for d in range(source.ndim) if d != dim])
        return (gradient if ctx.needs_input_grad[0] else None), sums, None


def _output_of(layer: Layer) -> str:
    return f"output of {layer.name}"


def _by_channel(graph: ChannelGraph, signed: Mapping[str, Floats]) -> Floats:
    """|dL/dc| of every channel: its readers' gates added up, with their signs."""
    total = np.zeros(int(graph.offsets[-1]))
    for start, group in zip(graph.offsets, graph.groups, strict=False):
        for member in group.members:
            if member.reads and member.parameter in signed:
                # Blocks of a grouped convolution read through the same column of the weight.
                size = graph.shapes[member.parameter][member.dim]
                folded = signed[member.parameter].reshape(-1, size).sum(0)
                total[start : start + group.width] += folded[member.positions].sum(1)
    return np.abs(total)


def _by_layer(graph: ChannelGraph, layer: Layer, channels: Floats, signed: Mapping[str, Floats]) -> Floats:
    unread = _unread(graph, layer)
    found = np.zeros(layer.width)
    inside = layer.channels[~unread]
    found[~unread] = channels[inside] / graph.neurons[inside]
    if unread.any() and _output_of(layer) in signed:
        found[unread] = np.abs(signed[_output_of(layer)])[unread]
    return found


def _unread(graph: ChannelGraph, layer: Layer) -> npt.NDArray[np.bool_]:
    """Which neurons of a layer have channels that no weight reads, or are always kept."""
    read = np.array([any(member.reads for member in group.members) for group in graph.groups] + [False])
    unread: npt.NDArray[np.bool_] = ~read[np.append(graph.group_of, -1)[layer.channels]]
    return unread
