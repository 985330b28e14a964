"""The gradients at every operator that runs a layer, wherever its weight comes from.

A layer's weight may be computed whenever the model runs: concatenated, normalized, a sum of products. So operators are
observed, as in tracing, and what is computed from nothing but parameters and buffers is a weight.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ranp.errors import InputError, RanpError, first_line
from ranp.graph import Layer
from ranp.module_utils import DispatchMode, all_tensors, tensors_in

_ATEN = torch.ops.aten
# Where the operators that run layers have their input and their weight, and later the gradients of the two.
_OPERANDS: dict[Any, tuple[int, int]] = {
    _ATEN.convolution: (0, 1),
    _ATEN.linear: (0, 1),
    _ATEN.mm: (0, 1),
    _ATEN.bmm: (0, 1),
    _ATEN.addmm: (1, 2),
    _ATEN.baddbmm: (1, 2),
}


@dataclass(frozen=True)
class Use:
    """One run of an operator with the weight of a layer.

    Attributes:
        operator: The operator.
        layers: The layer; several where parts of one parameter are used that have the same size.
        weight: The weight as the operator gets it.
        out_dim: Its dimension of output channels, in each of its blocks.
        blocks: Blocks of a grouped convolution.
        channel_dim: The input's dimension of channels.
        source: Returns the input, if a layer reads channels from it that may be removed.
    """

    operator: Any
    layers: tuple[Layer, ...]
    weight: Tensor
    out_dim: int
    blocks: int
    channel_dim: int
    source: Callable[[], Tensor] | None


# Called with the gradients of the input and of the weight; None is that of what needs none.
Receive = Callable[[Use, Tensor | None, Tensor | None], None]


class LayerUses(DispatchMode):
    """Observes the forward of a model, and passes on the gradients of every layer's input and weight.

    Args:
        model: The model.
        layers: The layers to observe.
        receive: What the gradients are passed to, during the backward pass.

    Attributes:
        seen: Parameters and buffers that the weights of the observed layers were computed from.
    """

    def __init__(self, model: nn.Module, layers: Iterable[Layer], receive: Receive) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self._model, self._receive = model, receive
        self._layers = defaultdict[str, list[Layer]](list)
        for layer in layers:
            self._layers[layer.weight].append(layer)
        self._weights: dict[int, _Weight] = {}
        self._new: list[tuple[Tensor, Use]] = []
        self._functions = _AfterEachFunction(self._attach)

    def __enter__(self) -> "LayerUses":
        self.forget()
        self._functions.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._functions.__exit__(*exception)

    def forget(self) -> None:
        """Forget the tensors of a batch."""
        self._weights.clear()
        for name, tensor in all_tensors(self._model).items():
            self._weights.setdefault(id(tensor), _Weight(tensor, tensor, name, frozenset([name])))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._attach()
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in _OPERANDS:
            self._note(func.overloadpacket, args, out)
        tensors = tensors_in((args, kwargs))
        weights = [self._weights[id(tensor)] for tensor in tensors if id(tensor) in self._weights]
        if weights and len(weights) == len(tensors):
            largest = max(weights, key=lambda weight: weight.tensor.numel())
            ingredients = frozenset[str]().union(*(weight.ingredients for weight in weights))
            for made in tensors_in(out):
                self._weights.setdefault(id(made), _Weight(made, largest.parameter, largest.name, ingredients))
        return out

    def _note(self, operator: Any, args: Sequence[Any], out: Tensor) -> None:
        """Note an operator, if it runs a layer."""
        source, tensor = (args[place] for place in _OPERANDS[operator])
        weight = self._weights.get(id(tensor))
        if weight is None:
            return
        dims = (1, int(args[6]), args[8]) if operator is _ATEN.convolution else (source.ndim - 1, tensor.ndim - 1, 1)
        channel_dim, out_dim, blocks = (source.ndim - 1, 0, 1) if operator is _ATEN.linear else dims
        sizes = source.shape[channel_dim], out.shape[channel_dim]
        layers = [layer for layer in self._layers[weight.name] if (len(layer.inputs), layer.width) == sizes]
        # A square parameter may also be used transposed.
        stride = tensor.stride(out_dim)
        same = [layer for layer in layers if not layer.computed and weight.parameter.stride(layer.out_dim) == stride]
        layers = same or layers
        if layers:
            self.seen |= weight.ingredients
        if layers and torch.is_grad_enabled():
            saved = _save(source) if any((layer.inputs >= 0).any() for layer in layers) else None
            self._new.append((out, Use(operator, tuple(layers), tensor, out_dim, blocks, channel_dim, saved)))

    def _attach(self) -> None:
        """Have the gradients at new outputs passed on; their nodes exist only once their operators have returned."""
        while self._new:
            out, use = self._new.pop()
            if out.grad_fn is not None:
                out.grad_fn.register_hook(partial(self._received, use))

    def _received(self, use: Use, gradients: Sequence[Tensor | None], _: Any) -> None:
        source, weight = (gradients[place] for place in _OPERANDS[use.operator])
        self._receive(use, source, weight)


@dataclass(frozen=True)
class _Weight:
    """A parameter, a buffer, or what is computed from such alone. It is held here, so that its id stays taken."""

    tensor: Tensor
    parameter: Tensor  # the largest of those that it is computed from, as in tracing
    name: str  # of that
    ingredients: frozenset[str]  # names of all of them


class _AfterEachFunction(TorchFunctionMode):
    """Calls something after each function of torch."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then = then

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.then()
        return out


def _save(tensor: Tensor) -> Callable[[], Tensor]:
    """A function that returns a tensor, which is saved as operators save theirs: checkpoints drop it meanwhile."""
    node: Any = _Saved.apply(tensor, torch.zeros((), requires_grad=True)).grad_fn
    return lambda: node.saved_tensors[0]


class _Saved(torch.autograd.Function):
    """Saves a tensor and does nothing else."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, anchor: Tensor) -> Tensor:
        ctx.save_for_backward(tensor)
        return anchor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None


def backward(loss: Tensor) -> None:
    """Run the backward pass; an `InputError` says why it fails."""
    try:
        loss.backward()
    except RanpError:
        raise
    except Exception as error:
        problem = f"the backward pass raised {type(error).__name__}: {first_line(error)}"
        raise InputError("loss", problem, hint="check that loss.backward() works in training mode") from error


def rows(values: Tensor, out_dim: int, blocks: int) -> Tensor:
    """A tensor of a weight's shape as a table with a row for each output channel.

    Example:
        >>> rows(Tensor(2, 3, 5), out_dim=1, blocks=1).shape
        torch.Size([3, 10])
    """
    if blocks == 1 or out_dim == 0:
        return values.movedim(out_dim, 0).flatten(1)
    # (in, out / blocks, ...): the rows of a block belong to the outputs of that block.
    split = values.reshape(blocks, -1, *values.shape[1:])
    return split.transpose(1, 2).flatten(0, 1).flatten(1)
