"""Writing a network line by line: every line runs at once, so that the next one can be chosen by shapes."""

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Layout = Literal["image", "tokens", "vector"]
"""(N, C, *positions), (N, L, C) or (N, C)."""

HEADER = """
import math
import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint
"""

MOST_ELEMENTS, MOST_CHANNELS, MOST_POSITIONS = 20_000, 48, 24
WIDTHS = (4, 8, 6, 2, 3, 5, 7, 9, 10, 12, 16, 1)


class Step(NamedTuple):
    """A kind of step, which results of which earlier steps it takes, and what it chose; None is the first option."""

    kind: str
    sources: tuple[tuple[int, int], ...] = ()
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Value:
    """A tensor of the network: its name in the code, and how it is laid out."""

    name: str
    layout: Layout
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.shape[-1 if self.layout == "tokens" else 1]

    @property
    def positions(self) -> tuple[int, ...]:
        """Size of every spatial dimension of an image, or number of tokens."""
        return self.shape[2:] if self.layout == "image" else self.shape[1:-1]


class UnfitError(Exception):
    """A step that cannot take the values that it is given."""


@dataclass(frozen=True)
class Kind:
    """A function that writes a step, the layouts of the values that it takes, and how often it is drawn.

    `variants` is the number of options of the choice that matters most; each of them is featured by some network.
    """

    write: Callable[..., "Value | tuple[Value, ...]"]
    layouts: tuple[Layout, ...]
    weight: float
    variants: int


KINDS: dict[str, Kind] = {}


def on(*layouts: Layout, weight: float = 1, variants: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a kind of step."""

    def register(write: Callable[..., Any]) -> Callable[..., Any]:
        KINDS[write.__name__] = Kind(write, layouts, weight, variants)
        return write

    return register


class Writer:
    """The code of a network, and its values so far.

    Where a choice is recorded, as it is when a network is built from its steps, it is made again; otherwise it is
    drawn, or, without a generator, the first option is taken.
    """

    def __init__(self, generator: random.Random | None = None) -> None:
        self.generator = generator
        self.definitions: dict[str, None] = {}
        self.init: list[tuple[int, str]] = []  # the number of the step, and the line
        self.forward: list[tuple[int, str]] = []
        self.steps: list[Step] = []
        self.values: list[tuple[Value, ...]] = []  # of every step
        self.inputs: dict[str, str] = {}  # code of the inputs by name
        self.returns: list[str] = []  # what the forward ends with
        self.options: dict[str, Any] = {}  # how the network is put together
        self.layers: dict[str, tuple[int, int, str]] = {}  # those that other steps may use: widths and code
        self.scope: dict[str, Any] = {"__name__": "random_network"}
        exec(HEADER, self.scope)
        self.scope["self"] = nn.Module().eval()
        self._recorded: Iterator[Any] = iter(())
        self._made: list[Any] = []
        self._names = 0
        self._variant: int | None = None
        self._variants = 0

    # -- steps -------------------------------------------------------------------------------------------------------

    def add(self, step: Step, variant: int | None = None) -> None:
        """Write a step, of a certain variant if it is drawn; where that fails nothing is changed."""
        before = len(self.init), len(self.forward), dict(self.definitions), dict(self.layers)
        self._recorded, self._made, self._names = iter(step.choices), [], 0
        self._variant = variant
        self._variants = 0 if variant is None else KINDS[step.kind].variants
        try:
            sources = [self.values[number][index] for number, index in step.sources]
            kind = KINDS[step.kind]
            if kind.layouts and tuple(value.layout for value in sources) != kind.layouts:
                raise UnfitError(step.kind)
            made = kind.write(self, *sources)
            values = made if isinstance(made, tuple) else (made,)
            if any(not self._is_small(value) for value in values):
                raise UnfitError("too large")
            if self._variant is not None and self._variants > 1:
                raise UnfitError("there is no such variant here")
        except Exception as error:
            del self.init[before[0] :], self.forward[before[1] :]
            self.definitions, self.layers = before[2:]
            raise UnfitError(f"{step.kind}: {type(error).__name__}: {error}") from error
        self.steps.append(step._replace(choices=tuple(self._made)))
        self.values.append(values)

    @staticmethod
    def _is_small(value: Value) -> bool:
        elements = torch.Size(value.shape).numel()
        positions = torch.Size(value.positions).numel()
        return elements <= MOST_ELEMENTS and value.width <= MOST_CHANNELS and 1 <= positions <= MOST_POSITIONS**2

    def choose(self, *options: Any) -> Any:
        """One of some options, the simplest of which comes first."""
        if not options:
            raise UnfitError("nothing to choose from")
        made = next(self._recorded, None)
        if made not in options:
            made = self._drawn(options)
        self._made.append(made)
        return made

    def _drawn(self, options: tuple[Any, ...]) -> Any:
        if not self.generator:
            return options[0]
        if self._variant is not None and len(options) == self._variants > 1:
            number, self._variant = self._variant, None
            return options[number]
        return self.generator.choice(options)

    def chance(self) -> bool:
        """False, the simpler option, or True."""
        return bool(self.choose(False, True))

    def width(self) -> int:
        """A number of channels."""
        return int(self.choose(*WIDTHS))

    # -- lines -------------------------------------------------------------------------------------------------------

    def name(self, prefix: str) -> str:
        """A name that no other step uses."""
        self._names += 1
        return f"{prefix}{len(self.steps)}" + ("abcdefghijklmnopqrstuvwxyz"[self._names - 2] if self._names > 1 else "")

    def define(self, text: str) -> None:
        """A class or function, written once."""
        if text not in self.definitions:
            exec(text, self.scope)
            self.definitions[text] = None

    def setup(self, line: str) -> None:
        """A line of `__init__`."""
        exec(line, self.scope)
        self.init.append((len(self.steps), line))

    def layer(self, code: str, prefix: str = "layer") -> str:
        """A module, parameter or anything else that `self` holds; its name is returned."""
        name = f"self.{self.name(prefix)}"
        self.setup(f"{name} = {code}")
        made = self.scope["self"]
        for part in name.split(".")[1:]:
            made = getattr(made, part)
        if isinstance(made, nn.Module):
            made.eval()
        return name

    def parameter(self, *shape: int) -> str:
        """A parameter."""
        return self.layer(f"nn.Parameter(torch.randn({', '.join(map(str, shape))}))", "weight")

    def buffer(self, code: str) -> str:
        """A buffer."""
        name = self.name("buffer")
        self.setup(f"self.register_buffer({name!r}, {code})")
        return f"self.{name}"

    def run(self, line: str) -> None:
        """A line of the forward."""
        with torch.no_grad(), contextlib.redirect_stdout(None):
            exec(line, self.scope)
        self.forward.append((len(self.steps), line))

    def let(self, code: str, prefix: str = "t") -> str:
        """A variable of the forward."""
        name = self.name(prefix)
        self.run(f"{name} = {code}")
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a variable."""
        return tuple(self.scope[name].shape)

    def value(self, layout: Layout, code: str) -> Value:
        """A result of the step."""
        name = self.let(code, "x")
        made = self.scope[name]
        if not (isinstance(made, Tensor) and made.is_floating_point() and made.isfinite().all()):
            raise UnfitError(f"{code} is not made of finite numbers")
        ranks = {"tokens": 3, "vector": 2}
        if made.ndim != ranks.get(layout, made.ndim):
            raise UnfitError(f"{code} has {made.ndim} dimensions")
        return Value(name, layout, tuple(made.shape))

    def image(self, code: str) -> Value:
        return self.value("image", code)

    def tokens(self, code: str) -> Value:
        return self.value("tokens", code)

    def vector(self, code: str) -> Value:
        return self.value("vector", code)

    def like(self, x: Value, code: str) -> Value:
        return self.value(x.layout, code)

    # -- what many steps need ------------------------------------------------------------------------------------------

    def conv(self, x: Value | str, ins: int, outs: int, kernel: int = 1, more: str = "") -> str:
        """Code of a convolution of something that has as many dimensions as the given value."""
        dims = len(self.scope[str(x)].shape) - 2
        padding = f", padding={kernel // 2}" if kernel > 1 and "padding=" not in more else ""
        return self.layer(f"nn.Conv{dims}d({ins}, {outs}, {kernel}{padding}{more})", "conv")

    def project(self, x: Value, width: int) -> str:
        """Code of a value with that many channels: the value itself, or a layer of it."""
        if x.width == width:
            return str(x)
        if x.layout == "image":
            return f"{self.conv(x, x.width, width)}({x})"
        return f"{self.layer(f'nn.Linear({x.width}, {width})', 'linear')}({x})"

    def fitted(self, x: Value, to: Value) -> str:
        """Code of a value with the channels and positions of another one of the same layout."""
        code = self.project(x, to.width)
        if x.positions == to.positions:
            return code
        if x.layout == "image":
            return f"F.interpolate({code}, size={to}.shape[2:])"
        return f"F.interpolate(({code}).transpose(1, 2), size={to}.shape[1]).transpose(1, 2)"

    def in_dims(self, x: Value, *dims: int) -> Value:
        """An image with one of these numbers of spatial dimensions; by default the first."""
        have = len(x.positions)
        if have in dims:
            return x
        if have > dims[0]:
            return self.in_dims(self.image(f"{x}.flatten(-2)"), *dims)
        parts = next((count for count in (2, 3, 5) if x.shape[-1] % count == 0 and x.shape[-1] > count), None)
        code = f"{x}.unflatten(-1, (-1, {parts}))" if parts else f"{x}.unsqueeze(2)"
        return self.in_dims(self.image(code), *dims)

    def own(self, x: Value) -> Value:
        """A copy that may be written into."""
        return self.like(x, f"{x} + 0.5" if self.chance() else f"{x}.clone()")


def divisors(number: int) -> list[int]:
    """Divisors of a number above 1, and below it."""
    return [factor for factor in range(2, number) if number % factor == 0]
