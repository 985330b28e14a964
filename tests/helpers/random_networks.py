"""Random networks for hypothesis: a list of steps, each of which reads earlier tensors and appends one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORM = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
AVERAGE_POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
WIDEST = 8


class Step(NamedTuple):
    """What to do with which earlier tensors, and the channels and positions per side that come out."""

    kind: str
    sources: tuple[int, ...]
    channels: int
    side: int
    how: Any = None


class Spec(NamedTuple):
    """A network as data, which hypothesis prints and shrinks."""

    dims: int
    batch: int
    channels: int
    side: int
    steps: tuple[Step, ...]
    heads: tuple[tuple[str, int], ...]

    def build(self) -> nn.Module:
        return Drawn(self)

    def inputs(self) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.batch, self.channels, *(self.side,) * self.dims, generator=generator)


# -- drawing -----------------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> Spec:
    dims = draw(st.sampled_from([1, 2, 2, 3]))
    side = draw(st.integers(3, 4 if dims == 3 else 6))
    channels = draw(st.integers(1, 3))
    tensors = [Step("input", (), channels, side)]
    tensors.append(Step("conv", (0,), draw(st.integers(2, WIDEST)), side, (3, 1, 1, True)))
    for _ in range(draw(st.integers(4, 9))):
        # Recent tensors are likelier: chains with branches, rather than many parallel stubs.
        source = len(tensors) - 1 - min(draw(st.sampled_from([0, 0, 0, 1, 2])), len(tensors) - 2)
        kinds = ["conv", "conv", *(kind for kind, possible in KINDS.items() if possible(tensors[source]))]
        kind = draw(st.sampled_from(kinds))
        step = DRAW[kind](draw, tensors, source)
        if step.channels <= 3 * WIDEST:
            tensors.append(step._replace(kind=kind))
    last = len(tensors) - 1
    heads = [(draw(st.sampled_from(["conv", "pooled", "flat"])), last)]
    if draw(st.booleans()):
        heads.append(("conv", draw(st.integers(1, last))))
    return Spec(dims, draw(st.integers(1, 3)), channels, side, tuple(tensors[1:]), tuple(heads))


KINDS: dict[str, Callable[[Step], bool]] = {
    "conv": lambda source: True,
    "grouped": lambda source: source.channels % 2 == 0,
    "depthwise": lambda source: source.channels <= WIDEST,
    "transposed": lambda source: source.side <= 3,
    "norm": lambda source: source.side >= 2,
    "act": lambda source: True,
    "pool": lambda source: source.side >= 2,
    "up": lambda source: source.side <= 3,
    "sum": lambda source: True,
    "cat": lambda source: True,
    "halves": lambda source: source.channels % 2 == 0,
    "shuffle": lambda source: source.channels % 2 == 0 and source.channels >= 4,
    "excite": lambda source: True,
    "again": lambda source: source.kind == "conv" and source.how[1] == 1,
}


def _conv(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    side = tensors[source].side
    kernel, stride = draw(st.sampled_from([(1, 1), (3, 1), (3, 2)]))
    how = (kernel, stride, 1, draw(st.booleans()))
    return Step("", (source,), draw(st.integers(1, WIDEST)), (side - 1) // stride + 1, how)


def _grouped(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    width = tensors[source].channels
    groups = draw(st.sampled_from([g for g in range(2, width + 1) if width % g == 0]))
    how = (3, 1, groups, draw(st.booleans()))
    return Step("", (source,), groups * draw(st.integers(1, 3)), tensors[source].side, how)


def _depthwise(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    width = tensors[source].channels
    return Step("", (source,), width * draw(st.integers(1, 2)), tensors[source].side, (3, 1, width, True))


def _transposed(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    width = tensors[source].channels
    groups = draw(st.sampled_from([1, 1, *(g for g in range(2, width + 1) if width % g == 0)]))
    return Step("", (source,), groups * draw(st.integers(1, 4)), 2 * tensors[source].side, groups)


def _norm(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    width = tensors[source].channels
    blocks = [g for g in range(2, width + 1) if width % g == 0 and g >= width // g]
    kinds = ["batch", "instance", "affine", "scale", *(("group", g) for g in blocks)]
    return Step("", (source,), width, tensors[source].side, draw(st.sampled_from(kinds)))


def _act(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    how = draw(st.sampled_from(["relu", "relu_", "sigmoid", "gelu", "prelu", "prelu of channels"]))
    return Step("", (source,), tensors[source].channels, tensors[source].side, how)


def _pool(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    return Step(
        "", (source,), tensors[source].channels, tensors[source].side // 2, draw(st.sampled_from(["max", "avg"]))
    )


def _up(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    return Step("", (source,), tensors[source].channels, 2 * tensors[source].side)


def _sum(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    other = draw(st.integers(0, len(tensors) - 1))
    how = draw(st.sampled_from(["+", "*", "+="]))
    return Step("", (source, other), tensors[source].channels, tensors[source].side, how)


def _cat(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    others = draw(st.lists(st.integers(0, len(tensors) - 1), min_size=1, max_size=2))
    found = (source, *others)
    return Step("", found, sum(tensors[index].channels for index in found), tensors[source].side)


def _halves(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    return Step(
        "", (source,), tensors[source].channels // 2, tensors[source].side, draw(st.sampled_from(["chunk", "slice"]))
    )


def _shuffle(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    width = tensors[source].channels
    blocks = draw(st.sampled_from([g for g in range(2, width) if width % g == 0]))
    return Step("", (source,), width, tensors[source].side, blocks)


def _excite(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    return Step("", (source,), tensors[source].channels, tensors[source].side, draw(st.integers(1, 3)))


def _again(draw: st.DrawFn, tensors: list[Step], source: int) -> Step:
    """The convolution that made the source, on another tensor of the width that it takes."""
    width = tensors[tensors[source].sources[0]].channels
    fitting = [index for index, step in enumerate(tensors) if step.channels == width]
    other = draw(st.sampled_from(fitting))
    return Step("", (other, source), tensors[source].channels, tensors[other].side)


DRAW: dict[str, Callable[[st.DrawFn, list[Step], int], Step]] = {
    "conv": _conv,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "transposed": _transposed,
    "norm": _norm,
    "act": _act,
    "pool": _pool,
    "up": _up,
    "sum": _sum,
    "cat": _cat,
    "halves": _halves,
    "shuffle": _shuffle,
    "excite": _excite,
    "again": _again,
}


# -- running -----------------------------------------------------------------------------------------------------


class Drawn(nn.Module):
    """Runs a Spec."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleDict()
        self.scales = nn.ParameterDict()
        tensors = [Step("input", (), spec.channels, spec.side), *spec.steps]
        for index, step in enumerate(tensors[1:], start=1):
            self._make(index, step, [tensors[source].channels for source in step.sources])
        for number, (kind, source) in enumerate(spec.heads):
            last = tensors[source]
            features = last.channels * (last.side**spec.dims if kind == "flat" else 1)
            self.layers[f"head{number}"] = self._conv(last.channels, 2) if kind == "conv" else nn.Linear(features, 2)

    def _conv(self, ins: int, outs: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True) -> Any:
        make = CONV[self.spec.dims - 1]
        return make(ins, outs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)

    def _make(self, index: int, step: Step, widths: list[int]) -> None:
        dims, name, width = self.spec.dims, str(index), widths[0]
        if step.kind in ("conv", "grouped", "depthwise"):
            self.layers[name] = self._conv(width, step.channels, *step.how)
        elif step.kind == "transposed":
            self.layers[name] = TRANSPOSED[dims - 1](width, step.channels, 2, stride=2, groups=step.how)
        elif step.kind == "norm" and step.how == "scale":
            self.scales[name] = nn.Parameter(torch.ones(width, *(1,) * dims))
        elif step.kind == "norm":
            self.layers[name] = {
                "batch": BATCH_NORM[dims - 1],
                "instance": INSTANCE_NORM[dims - 1],
                "affine": lambda width: INSTANCE_NORM[dims - 1](width, affine=True),
            }.get(step.how, lambda width: nn.GroupNorm(step.how[1], width))(width)
        elif step.kind == "act" and step.how.startswith("prelu"):
            self.layers[name] = nn.PReLU(1 if step.how == "prelu" else width)
        elif step.kind == "sum" and widths[1] != width:
            self.layers[name] = self._conv(widths[1], width)
        elif step.kind == "excite":
            self.layers[name] = nn.Sequential(self._conv(width, step.how), nn.ReLU(), self._conv(step.how, width))

    def forward(self, x: Tensor) -> list[Tensor]:
        tensors = [x]
        for index, step in enumerate(self.spec.steps, start=1):
            found = [tensors[source] for source in step.sources]
            tensors.append(self._step(str(index), step, found))
        return [self._head(f"head{n}", kind, tensors[source]) for n, (kind, source) in enumerate(self.spec.heads)]

    def _head(self, name: str, kind: str, x: Tensor) -> Tensor:
        if kind == "pooled":
            x = x.mean(tuple(range(2, x.ndim)))
        return self.layers[name](x.flatten(1) if kind == "flat" else x)

    def _step(self, name: str, step: Step, found: list[Tensor]) -> Tensor:
        x, dims = found[0], self.spec.dims
        if step.kind in ("conv", "grouped", "depthwise", "transposed", "norm"):
            return x * self.scales[name] if name in self.scales else self.layers[name](x)
        if step.kind == "act":
            act: Any = getattr(torch, step.how, None) or getattr(F, step.how, None)
            # In place, but never on the caller's input.
            return self.layers[name](x) if name in self.layers else act(x)
        if step.kind == "pool":
            return (MAX_POOL if step.how == "max" else AVERAGE_POOL)[dims - 1](x, 2)
        if step.kind == "up":
            return F.interpolate(x, scale_factor=2)
        if step.kind == "cat":
            return torch.cat([_resize(tensor, x) for tensor in found], 1)
        if step.kind == "sum":
            return self._sum(name, step.how, x, found[1])
        if step.kind == "halves":
            half = x.shape[1] // 2
            left, right = x.chunk(2, 1) if step.how == "chunk" else (x[:, :half], x[:, half:])
            return left * right.sigmoid()
        if step.kind == "shuffle":
            split = x.reshape(x.shape[0], step.how, x.shape[1] // step.how, *x.shape[2:])
            return split.transpose(1, 2).reshape(x.shape)
        if step.kind == "excite":
            return x * self.layers[name](x.mean(tuple(range(2, x.ndim)), keepdim=True)).sigmoid()
        assert step.kind == "again"
        return self.layers[str(step.sources[1])](x)

    def _sum(self, name: str, how: str, x: Tensor, other: Tensor) -> Tensor:
        y = _resize(self.layers[name](other) if name in self.layers else other, x)
        if how == "+=":
            x = x.clone()
            x += y
            return x
        return x + y if how == "+" else x * y


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size=like.shape[2:])
