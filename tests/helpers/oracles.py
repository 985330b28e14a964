"""Independent answers to what pruning must compute: written without ranp's own masks, costs or surgery."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import ranp
from ranp.graph import ChannelGraph
from ranp.plan import Plan
from ranp.scores import Scores

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


# -- models and plans --------------------------------------------------------------------------------------------

# Allocation as published: neither a guard against narrow layers nor rounding.
EVERY_WIDTH: dict[str, int] = {"min_width": 1, "round_to": 1}


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """A float64 model in eval mode, with random parameters and buffers (variances positive)."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            fresh = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.data = fresh.abs() + 0.5 if name.endswith("running_var") else fresh
    return model


def in_double(inputs: Any) -> Any:
    """The same inputs in float64."""
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {name: in_double(value) for name, value in inputs.items()}
    return tuple(in_double(value) for value in inputs)


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All outputs of a forward pass without gradients."""
    with torch.no_grad():
        if isinstance(inputs, Mapping):
            out = model(**inputs)
        else:
            out = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return list(_tensors(vars(out) if is_dataclass(out) else out))


def scores_of(graph: ChannelGraph, channels: Any, seed: int = 0) -> Scores:
    """Scores that come from nowhere."""
    return Scores("random", "", 0.0, seed, {}, np.asarray(channels, dtype=np.float64), 0)


def random_scores(graph: ChannelGraph, seed: int) -> Scores:
    """Scores drawn uniformly."""
    return scores_of(graph, np.random.default_rng(seed).random(len(graph.group_of)), seed)


def random_plan(graph: ChannelGraph, seed: int, fraction: float, min_width: int = 1) -> Plan:
    """A plan for a random ranking, `fraction` of the way from the narrowest network to the full one."""
    least = graph.cost(np.minimum(graph.widths, min_width)).macs / graph.cost().macs
    budget = ranp.Budget(macs=min(1.0, least + fraction * (1 - least) + 1e-9))
    return ranp.allocate(graph, random_scores(graph, seed), budget, min_width=min_width, round_to=1)


# -- masked = pruned ---------------------------------------------------------------------------------------------


def masked_like(full: nn.Module, small: nn.Module) -> nn.Module:
    """A copy of the full model in which every weight that reads a channel that `small` lacks is zero there.

    Which channels are missing is found by looking the small model's values up among the full model's: that needs no
    plan, and fails unless every surviving weight was copied exactly.
    """
    masked = copy.deepcopy(full)
    pairs = zip(full.modules(), small.modules(), masked.modules(), strict=True)
    for before, after, target in pairs:
        for name, dim in _reading(before, after):
            kept = kept_indices(getattr(before, name), getattr(after, name))[dim]
            gone = np.setdiff1d(np.arange(getattr(before, name).shape[dim]), kept)
            getattr(target, name).data.index_fill_(dim, torch.from_numpy(gone), 0.0)
    return masked


def zeroed(full: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the full model in which everything that a plan removes from parameters is zero.

    For networks that multiply activations with each other: no weight reads the channels over which such a product sums.
    Layer norms take their statistics over the kept channels.
    """
    masked = copy.deepcopy(full)
    tensors = dict((*masked.named_parameters(), *masked.named_buffers()))
    for entry in plan.slices:
        gone = np.setdiff1d(np.arange(entry.size), entry.keep)
        tensors[entry.tensor].data.index_fill_(entry.dim, torch.from_numpy(gone), 0.0)
        module = masked.get_submodule(entry.tensor.rpartition(".")[0])
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda norm, args, out, kept=entry.keep: _normalized(norm, args[0], kept))
    return masked


def _normalized(norm: nn.LayerNorm, x: Tensor, kept: Sequence[int]) -> Tensor:
    """A layer norm of some channels; the others are zero."""
    part = x[..., list(kept)]
    part = (part - part.mean(-1, keepdim=True)) / (part.var(-1, keepdim=True, correction=0) + norm.eps).sqrt()
    return torch.zeros_like(x).index_copy(-1, torch.tensor(kept), part) * norm.weight + norm.bias


def kept_indices(full: Tensor, small: Tensor) -> list[Any]:
    """For each dimension the indices of `full` of which `small` is made up (all values must differ)."""
    values, wanted = full.detach().numpy(), small.detach().numpy()
    order = np.argsort(values, axis=None)
    places = order[np.searchsorted(values.reshape(-1)[order], wanted.reshape(-1)).clip(max=values.size - 1)]
    coordinates = np.unravel_index(places.reshape(wanted.shape), values.shape)
    kept = [np.unique(axis) for axis in coordinates]
    assert np.array_equal(values[np.ix_(*kept)], wanted), "surviving weights were not copied exactly, in order"
    return kept


def _reading(full: nn.Module, small: nn.Module) -> list[tuple[str, int]]:
    """Weights that read channels, and along which dimension; none where a layer reads them block by block."""
    if isinstance(full, nn.Linear):
        return [("weight", 1)]
    if isinstance(full, (*CONVOLUTIONS, *TRANSPOSED)) and full.groups == small.groups:
        return [("weight", 1 if isinstance(full, CONVOLUTIONS) else 0)]
    return [(name, 1) for name in ("weight_ih_l0", "weight_ih_l0_reverse", "weight_ih") if hasattr(full, name)]


def assert_masked_is_pruned(full: nn.Module, small: nn.Module, inputs: Any, tolerance: float = 1e-9) -> None:
    """The pruned model's outputs are those of the original whose consumers of the removed channels are zeroed."""
    assert_same_outputs(masked_like(full, small), small, inputs, tolerance)


def assert_same_outputs(masked: nn.Module, small: nn.Module, inputs: Any, tolerance: float = 1e-9) -> None:
    """Both models compute the same, up to rounding."""
    expected, found = run(masked, inputs), run(small, inputs)
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    for a, b in zip(expected, found, strict=True):
        assert torch.isfinite(a).all()
        gap = float((a - b).abs().max()) / max(1.0, float(a.abs().max()))
        assert gap <= tolerance, f"outputs differ by {gap:.3g}"


# -- costs -------------------------------------------------------------------------------------------------------


def counted_macs(model: nn.Module, inputs: Any, *, einsum_as_product: bool = False) -> int:
    """Multiply-adds of one forward pass, by torch's own counter of floating-point operations.

    Where a size is 1, `torch.einsum` multiplies element by element, which the counter leaves out; with
    `einsum_as_product` that is counted like at other sizes.
    """
    mode = _MatrixEinsum() if einsum_as_product else nullcontext()
    with slow_attention(), FlopCounterMode(display=False) as counter, mode:
        run(model, inputs)
    return counter.get_total_flops() // 2


class _MatrixEinsum(TorchFunctionMode):
    """Einsum of two tensors as a matrix product."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.einsum or len(args) != 3 or "." in args[0]:
            return func(*args, **(kwargs or {}))
        terms, made = args[0].replace(" ", "").split("->")
        first, second = terms.split(",")
        sizes = dict(zip(first + second, (*args[1].shape, *args[2].shape), strict=True))
        batch = [x for x in first if x in second and x in made]
        summed = [x for x in first if x in second and x not in made]
        if not summed or not set(first + second) <= {*made, *summed}:
            return func(*args)
        rows, columns = ([x for x in term if x in made and x not in batch] for term in (first, second))
        a = args[1].permute([first.index(x) for x in (*batch, *rows, *summed)])
        b = args[2].permute([second.index(x) for x in (*batch, *summed, *columns)])
        count = [math.prod(sizes[x] for x in part) for part in (batch, rows, summed, columns)]
        out = torch.bmm(a.reshape(count[0], count[1], count[2]), b.reshape(count[0], count[2], count[3]))
        found = [*batch, *rows, *columns]
        return out.reshape([sizes[x] for x in found]).permute([found.index(x) for x in made])


@contextmanager
def slow_attention() -> Iterator[None]:
    """Attention as ordinary operators: torch's counter knows nothing of its fused operators."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def counted_params(model: nn.Module) -> int:
    """Elements of all parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


class _Allocations(TorchDispatchMode):
    """Adds up the bytes of all outputs whose memory none of the operator's inputs owns."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        owned = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            if tensor.untyped_storage().data_ptr() not in owned:
                self.bytes += tensor.numel() * tensor.element_size()
        return out


def counted_activation_bytes(model: nn.Module, inputs: Any) -> int:
    """Bytes that the operators of one real forward pass allocate for their outputs."""
    with slow_attention(), _Allocations() as counter:
        run(model, inputs)
    return counter.bytes


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def assert_costs_are_counted(
    graph: ChannelGraph, plan: Plan, small: nn.Module, inputs: Any, copies_may_vanish: bool = False
) -> None:
    """The formulas and the plan say what counters of the pruned model find."""
    widths = [len(plan.keep[group.name]) for group in graph.groups]
    found = graph.cost(widths)
    assert found == plan.cost
    assert found.macs == counted_macs(small, inputs)
    assert found.params == counted_params(small)
    allocated = counted_activation_bytes(small, inputs)
    assert found.activation_bytes >= allocated if copies_may_vanish else found.activation_bytes == allocated


def assert_attributes_fit(model: nn.Module) -> None:
    """The sizes that modules keep besides their parameters are those of their parameters."""
    for path, module in model.named_modules():
        for name, size in _sizes(module).items():
            assert getattr(module, name) == size, f"{path}.{name}"


def _sizes(module: nn.Module) -> dict[str, Any]:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return {}
    shape = tuple(weight.shape)
    if isinstance(module, nn.Linear):
        return {"out_features": shape[0], "in_features": shape[1]}
    if isinstance(module, CONVOLUTIONS):
        return {"out_channels": shape[0], "in_channels": shape[1] * module.groups}
    if isinstance(module, TRANSPOSED):
        return {"in_channels": shape[0], "out_channels": shape[1] * module.groups}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": shape[0]}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": shape[0]}
    if isinstance(module, nn.LayerNorm):
        return {"normalized_shape": shape}
    return {"num_features": shape[0]} if hasattr(module, "num_features") else {}
