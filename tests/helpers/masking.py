"""What a pruned network must compute, from the full network and the plan alone.

Removed entries of parameters and buffers are NaN, and the full network runs as it is: elementwise operators, views and
pooling carry NaN along with the channels that were removed. Operators that add up, average or compare along dimensions
leave NaN out, as if it were not there; where all is NaN, so is the result. What reaches the outputs without NaN is what
the pruned network must return. Nothing here knows which layers read a channel, or what tracing found out.

Numbers that a forward computes from shapes, such as `x.shape[1] ** -0.5`, are those of the pruned network: it runs
first, and the numbers that its operators take are used again. Random numbers are constants.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.oracles import run, slow_attention
from ranp.plan import Plan

NAN, INF = float("nan"), float("inf")
_DRAWS = (
    "rand randn normal uniform bernoulli exponential randint random native_dropout poisson cauchy log_normal geometric"
)
RANDOM = {*_DRAWS.split(), "_standard_gamma"}
EMPTY = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"}
LIKE = {"zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"}
STAY = {"fill", "zero", "index_fill", "masked_fill"}
PLANES = {"constant_pad_nd", "max_unpool2d", "max_unpool3d"}
LOSES = {"where", "copy", "masked_fill", "fill", "zero"}


@dataclass
class Run:
    """Outputs and buffers after a forward pass, and the numbers that its operators took."""

    outputs: list[Tensor]
    buffers: dict[str, Tensor]
    numbers: list[tuple[str, list[float]]] = field(default_factory=list)


def pruned_run(model: nn.Module, inputs: Any, *, training: bool) -> Run:
    """A forward pass of a pruned network."""
    mode = _Deterministic()
    return _run(model, inputs, training, mode)


def masked_run(model: nn.Module, plan: Plan, inputs: Any, pruned: Run, *, training: bool) -> Run:
    """The forward pass of the full network without what a plan removes; `pruned` is that of the pruned network."""
    with restored(model):
        for name, tensor in held_tensors(model).items():
            for change in plan.rescale:
                if change.tensor == name:
                    rows = tensor.data.index_select(change.dim, torch.tensor(change.at))
                    tensor.data.index_copy_(change.dim, torch.tensor(change.at), rows * change.factor)
            for entry in plan.slices:
                if entry.tensor == name:
                    gone = np.setdiff1d(np.arange(entry.size), entry.keep)
                    tensor.data.index_fill_(entry.dim, torch.from_numpy(gone), NAN)
        return _run(model, inputs, training, _Masked(pruned.numbers))


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters, buffers and tensors in ordinary attributes, under each of their names."""
    found = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        held = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
        found.update({f"{path}.{name}" if path else name: value for name, value in held.items()})
    return found


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Undo what is done to a model: values, modes and attributes. Meanwhile, no parameter needs a gradient."""
    values = [(tensor, tensor.detach().clone()) for tensor in held_tensors(model).values()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    saved = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        # Counters of operators stumble over views of parameters that need gradients.
        model.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, attributes, buffers in saved:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
        for tensor, value in values:
            tensor.data.copy_(value)


@contextmanager
def repeatable() -> Iterator[None]:
    """Seed all random number generators, and restore them."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)


def _run(model: nn.Module, inputs: Any, training: bool, mode: "_Deterministic") -> Run:
    with ExitStack() as stack:
        for context in (restored(model), slow_attention(), sdpa_kernel(SDPBackend.MATH), repeatable()):
            stack.enter_context(context)
        model.train(training)
        with mode:
            outputs = run(model, inputs)
        buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    return Run(outputs, buffers, mode.numbers)


class _Deterministic(TorchDispatchMode):
    """Replaces random numbers by constants, and takes down numbers among the arguments of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[tuple[str, list[float]]] = []
        self.draws = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        args, kwargs = self._with_numbers(func, name, args, kwargs or {})
        if name == "rrelu_with_noise":
            out = torch.where(args[0] > 0, args[0], args[0] * 0.2)
            return args[0].copy_(out) if func._schema.is_mutable and func.overloadpacket.__name__[-1] == "_" else out
        out = self.compute(func, name, args, kwargs)
        if name.removesuffix("_like") in RANDOM and isinstance(out, Tensor) and out.is_floating_point():
            self.draws += 1
            out.masked_fill_(~out.isnan(), 0.3 + 0.05 * (self.draws % 9))
        elif name in EMPTY and out.is_floating_point():
            out.zero_()
        return out

    def compute(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)

    def _with_numbers(self, func: Any, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Take down numbers that a forward may have computed; subclasses replace them."""
        kinds = (int, float) if torch.Tag.pointwise in func.tags or name in ("addmm", "baddbmm") else ()
        places = [index for index, arg in enumerate(args) if type(arg) in kinds]
        named = [key for key, arg in kwargs.items() if type(arg) in kinds]
        found = [*(args[index] for index in places), *(kwargs[key] for key in named)]
        if not found:
            return args, kwargs
        used = iter(self.exchange(name, found))
        changed = list(args)
        for index in places:
            changed[index] = next(used)
        return tuple(changed), {**kwargs, **{key: next(used) for key in named}}

    def exchange(self, name: str, found: list[float]) -> list[float]:
        self.numbers.append((name, found))
        return found


class _Masked(_Deterministic):
    """Operators as if NaN were not there."""

    def __init__(self, numbers: list[tuple[str, list[float]]]) -> None:
        super().__init__()
        self.expected = iter(numbers)

    def exchange(self, name: str, found: list[float]) -> list[float]:
        other, used = next(self.expected, ("nothing", []))
        assert other == name, f"the full network runs {name} where the pruned one runs {other}"
        return used

    def compute(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in ("resize", "resize_as") and not args[0].numel():
            return func(*args, **kwargs).zero_()  # New memory may hold anything.
        tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor) and arg.is_floating_point()]
        if not any(tensor.isnan().any() for tensor in tensors):
            return func(*args, **kwargs)
        if name in HANDLERS:
            made = HANDLERS[name](*args, **kwargs)
            if made is not NotImplemented:
                return made
        gone = args[0].isnan() if isinstance(args[0], Tensor) else None
        out = func(*args, **kwargs)
        if name in LIKE | STAY:
            out.masked_fill_(gone, NAN)
        elif name in PLANES and out.shape[:2] == args[0].shape[:2]:
            out.masked_fill_(gone.flatten(2).all(2).reshape(*out.shape[:2], *[1] * (out.ndim - 2)), NAN)
        elif torch.Tag.pointwise in func.tags and name not in LOSES and out.is_floating_point():
            for tensor in tensors:
                if tensor is not out:
                    out.masked_fill_(tensor.isnan().broadcast_to(out.shape), NAN)
        return out


# -- operators that leave NaN out --------------------------------------------------------------------------------------


def _zero(tensor: Tensor | None, fill: float = 0.0) -> Any:
    return None if tensor is None else torch.where(tensor.isnan(), fill, tensor)


def _convolution(x: Tensor, w: Tensor, b: Tensor | None, *how: Any) -> Tensor:
    transposed, groups = how[3], how[5]
    out = torch.ops.aten.convolution.default(_zero(x), _zero(w), _zero(b), *how)
    gone = w.isnan().flatten(2).all(2)  # of the first two dimensions
    gone = gone.reshape(groups, -1, gone.shape[1]).all(1).reshape(-1) if transposed else gone.all(1)
    if b is not None:
        gone = gone | b.isnan()
    empty = x.isnan().reshape(len(x), groups, -1).all(2).repeat_interleave(out.shape[1] // groups, 1)
    return out.masked_fill_((gone | empty).reshape(*out.shape[:2], *[1] * (out.ndim - 2)), NAN)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A matrix product: NaN where a whole row or column is."""
    out = torch.matmul(_zero(a), _zero(b))
    gone = a.isnan().all(-1)
    gone = gone[..., None] if b.ndim > 1 else gone
    return out.masked_fill_(
        gone | b.isnan().all(-2 if b.ndim > 1 else -1)[(..., None, slice(None)) if a.ndim > 1 and b.ndim > 1 else ...],
        NAN,
    )


def _added_product(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _product(a, b) * alpha + (bias * beta if beta else 0)


def _trilinear(a: Tensor, w: Tensor, b: Tensor, *_: Any) -> Tensor:
    """A bilinear layer, with a weight of shape (outputs, features, other features)."""
    out = torch.einsum("...i,oij,...j->...o", _zero(a), _zero(w), _zero(b))
    return out.masked_fill_(w.isnan().flatten(1).all(1), NAN)


def _dims(x: Tensor, dims: Any) -> tuple[int, ...]:
    if dims is None or dims == []:
        return tuple(range(x.ndim))
    return tuple(dim % x.ndim for dim in ([dims] if isinstance(dims, int) else dims))


def _reduced(x: Tensor, dims: Any, keepdim: bool, make: Callable[[Tensor, tuple[int, ...]], Tensor]) -> Tensor:
    """Apply a function that keeps dimensions; where all is NaN, so is the result."""
    dims = _dims(x, dims)
    out = torch.where(x.isnan().all(dims, keepdim=True) if dims else x.isnan(), NAN, make(x, dims))
    return out if keepdim else out.squeeze(dims)


def _sum(x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return _reduced(x, dims, keepdim, lambda x, d: x.nansum(d, keepdim=True))


def _mean(x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return _reduced(x, dims, keepdim, lambda x, d: x.nanmean(d, keepdim=True))


def _variance(x: Tensor, dims: tuple[int, ...], correction: float) -> Tensor:
    square = (x - x.nanmean(dims, keepdim=True)).square().nansum(dims, keepdim=True)
    return square / ((~x.isnan()).sum(dims, keepdim=True) - correction).clamp(min=0)


def _var(x: Tensor, dims: Any = None, *, correction: float | None = 1, keepdim: bool = False) -> Tensor:
    return _reduced(x, dims, keepdim, lambda x, d: _variance(x, d, 1 if correction is None else correction))


def _extreme(name: str, fill: float) -> Callable[..., Any]:
    def handler(x: Tensor, dims: Any = None, keepdim: bool = False) -> Any:
        if name in ("max", "min") and isinstance(dims, int):
            values, places = getattr(_zero(x, fill), name)(dims, keepdim)
            return torch.where(x.isnan().all(dims, keepdim), NAN, values), places
        return _reduced(x, dims, keepdim, lambda x, d: getattr(_zero(x, fill), f"a{name.lstrip('a')}")(d, keepdim=True))

    return handler


def _prod(x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return _reduced(x, dims, keepdim, lambda x, d: _zero(x, 1.0).prod(d[0], keepdim=True))


def _logsumexp(x: Tensor, dims: Any, keepdim: bool = False) -> Tensor:
    return _reduced(x, dims, keepdim, lambda x, d: _zero(x, -INF).logsumexp(d, keepdim=True))


def _norm(x: Tensor, p: float = 2, dims: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    order = 2 if p is None else p
    return _reduced(x, dims, keepdim, lambda x, d: torch.linalg.vector_norm(_zero(x), order, d, keepdim=True))


def _softmax(name: str) -> Callable[..., Any]:
    def handler(x: Tensor, dim: int, *_: Any) -> Tensor:
        return torch.where(x.isnan(), NAN, getattr(_zero(x, -INF), name)(dim)).contiguous()

    return handler


def _layer_norm(x: Tensor, shape: Any, w: Tensor | None, b: Tensor | None, eps: float) -> Any:
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    mean, rstd = _mean(x, dims, True), (_var(x, dims, correction=0, keepdim=True) + eps).rsqrt()
    return _affine((x - mean) * rstd, w, b), mean, rstd


def _rms_norm(x: Tensor, shape: Any, w: Tensor | None, eps: float | None) -> Any:
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    rstd = (_mean(x.square(), dims, True) + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return _affine(x * rstd, w, None), rstd


def _group_norm(x: Tensor, w: Tensor | None, b: Tensor | None, n: int, c: int, _: int, groups: int, eps: float) -> Any:
    blocks = x.reshape(n, groups, -1)
    mean, rstd = _mean(blocks, 2, True), (_var(blocks, 2, correction=0, keepdim=True) + eps).rsqrt()
    shape = (c, *[1] * (x.ndim - 2))
    w, b = (None if t is None else t.view(shape) for t in (w, b))
    return _affine(((blocks - mean) * rstd).reshape(x.shape), w, b), mean[..., 0], rstd[..., 0]


def _affine(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    x = x if w is None else x * w
    return x if b is None else x + b


def _batch_norm(x: Tensor, w: Any, b: Any, mean: Any, var: Any, training: bool, momentum: Any, eps: float) -> Any:
    """Batch statistics, where only some entries of a channel are missing, as in weights that are standardized."""
    gone = x.isnan().transpose(0, 1).flatten(1)
    if not training or not (gone.any(1) & ~gone.all(1)).any() or mean is not None:
        return NotImplemented
    dims = (0, *range(2, x.ndim))
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean, rstd = _mean(x, dims, True), (_var(x, dims, correction=0, keepdim=True) + eps).rsqrt()
    w, b = (None if t is None else t.view(shape) for t in (w, b))
    return _affine((x - mean) * rstd, w, b), mean.reshape(-1), rstd.reshape(-1)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Any:
    length = _norm(v, 2, tuple(d for d in range(v.ndim) if d != dim), True)
    return v * (g / length), length


HANDLERS: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    **dict.fromkeys(("mm", "bmm", "mv", "dot"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _added_product),
    "_trilinear": _trilinear,
    "bernoulli": lambda x, *_, **__: torch.where(x.isnan(), NAN, torch.bernoulli(_zero(x, 0.5))),
    "poisson": lambda x, *_, **__: torch.where(x.isnan(), NAN, torch.poisson(_zero(x, 0.5))),
    "sum": _sum,
    "mean": _mean,
    "var": _var,
    "std": lambda *args, **kwargs: _var(*args, **kwargs).sqrt(),
    "var_mean": lambda x, dims=None, correction=1, keepdim=False: (
        _var(x, dims, correction=correction, keepdim=keepdim),
        _mean(x, dims, keepdim),
    ),
    "std_mean": lambda x, dims=None, correction=1, keepdim=False: (
        _var(x, dims, correction=correction, keepdim=keepdim).sqrt(),
        _mean(x, dims, keepdim),
    ),
    "amax": _extreme("amax", -INF),
    "amin": _extreme("amin", INF),
    "max": _extreme("max", -INF),
    "min": _extreme("min", INF),
    "prod": _prod,
    "logsumexp": _logsumexp,
    "linalg_vector_norm": _norm,
    "norm": _norm,
    "_softmax": _softmax("softmax"),
    "_safe_softmax": _softmax("softmax"),
    "_log_softmax": _softmax("log_softmax"),
    "native_layer_norm": _layer_norm,
    "_fused_rms_norm": _rms_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
    "_weight_norm_interface": _weight_norm,
}


# -- comparison --------------------------------------------------------------------------------------------------------


def largest_gap(expected: list[Tensor], found: list[Tensor]) -> float:
    """Largest difference, relative to the largest value of its tensor; infinite where shapes differ or NaN is left."""
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return INF
    gaps = [0.0]
    for a, b in zip(expected, found, strict=True):
        if a.numel() and not torch.equal(a, b):
            gap = torch.where(a == b, 0.0, (a.double() - b.double()).abs())
            size = float(torch.where(a.isfinite(), a.abs(), 0.0).max())
            gaps.append(float(torch.nan_to_num(gap, nan=INF).max()) / max(1.0, size))
    return max(gaps)


def kept_part(tensor: Tensor, name: str, plan: Plan) -> Tensor:
    """What a plan leaves of a parameter or buffer."""
    for entry in plan.slices:
        if entry.tensor == name:
            tensor = tensor.index_select(entry.dim, torch.tensor(entry.keep))
    return tensor
