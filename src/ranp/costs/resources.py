"""The resources that a budget can limit, and the units in which limits and amounts are written."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ranp.arguments import require_fields
from ranp.costs.formulas import Cost, Sizes

COUNTS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BYTES = {
    **{"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40},
    **{"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12},
}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_QUANTITY = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z\u00b5\u03bc%]*)\s*")


@dataclass(frozen=True)
class Resource:
    """A resource that a budget can limit.

    Args:
        name: Name of the resource; for those of ranp, the field of `Cost`.
        cost: From a `ChannelGraph` and the kept width of every group, of shape (groups,), to what the network costs
            then. It must not decrease when a width grows.
        label: Name in tables; by default `name`.
        unit: Unit in tables.
        scale: How much one unit is.
        limit: Name of its limit in `ranp.Budget`; by default `name`.
        removes: Whether the limit is a fraction to remove, not one to keep.
        units: Units in which a limit can be given, and how much each is.
        remedy: What to do where the cost of a network is not known.

    Example:
        A resource of your own, proportional to the number of channels that are kept. It is passed as an argument:
        `ranp.allocate(graph, scores, ranp.Budget(custom={"energy": 0.3}), resources=[energy])`.

        >>> energy = Resource("energy", lambda graph, widths: 2.5 * float(widths.sum()), unit="J")
        >>> energy.cost(None, np.array([4, 8])), energy.text(30.0)
        (30.0, '30.000 J')
    """

    name: str
    cost: Callable[[Any, Sizes], float | None]
    label: str = ""
    unit: str = ""
    scale: float = 1
    limit: str = ""
    removes: bool = False
    units: Mapping[str, float] = field(default_factory=dict, hash=False)
    remedy: str = ""

    def __post_init__(self) -> None:
        require_fields(self)
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "limit", self.limit or self.name)

    def of(self, cost: Cost) -> float | None:
        """The amount of one of ranp's own resources in a cost; None where it is not known."""
        amount: float | None = getattr(cost, self.name)
        return amount

    def text(self, amount: float) -> str:
        """An amount with its unit."""
        return f"{amount / self.scale:,.{3 if self.unit else 0}f} {self.unit}".strip()

    def fraction(self, amount: float, full: float) -> float:
        """The fraction that the limit bounds: what is kept of the full network's amount, or what is removed of it."""
        kept = amount / full if full else 1.0
        return 1 - kept if self.removes else kept

    def most(self, limit: float | str, full: float) -> float:
        """The largest amount that a limit permits: a fraction of the full network's, or an amount with a unit.

        Example:
            >>> macs = next(resource for resource in RESOURCES if resource.name == "macs")
            >>> macs.most(0.25, 100), macs.most("2.5 G", 100)
            (25.0, 2500000000.0)
        """
        if isinstance(limit, str):
            return self._amount(limit)
        return full * (1 - limit if self.removes else limit)

    def parse(self, value: Any) -> float | str:
        """A limit as `Budget` stores it: a fraction as a number, an amount as text in one way of writing.

        Raises:
            ValueError: It is neither; the message says what is expected.

        Example:
            >>> time = next(resource for resource in RESOURCES if resource.limit == "step_time")
            >>> [time.parse(value) for value in (0.4, "40%", "80ms", "0.08 s")]
            [0.4, 0.4, '80 ms', '0.08 s']
        """
        text = value if isinstance(value, str) else ""
        match = _QUANTITY.fullmatch(text)
        number, unit = (_number(match[1]), match[2]) if match else (value, "")
        if isinstance(number, bool) or not isinstance(number, (int, float)) or (text and not match):
            raise ValueError(self._expected(""))
        if unit == "%":
            number = number / 100
        elif unit:
            known = {spelling.lower(): spelling for spelling in self.units} | {"\u00b5s": "us", "\u03bcs": "us"}
            if known.get(unit.lower()) not in self.units:
                units = f", or an amount in {', '.join(self.units)}" if self.units else ""
                raise ValueError(f"a fraction, for example {self.limit}=0.05{units}")
            if 0 < number < float("inf"):
                return f"{number:.12g} {known[unit.lower()]}"
            raise ValueError(self._expected(""))
        if not (0 <= number < 1 if self.removes else 0 < number <= 1):
            raise ValueError(self._expected(f"{number:g}" if 1 < number <= 100 else ""))
        return float(number)

    def in_unit_of(self, amount: float, limit: float | str, full: float, *, up: bool) -> str:
        """An amount written in the way of a limit, with four digits, rounded up or down."""
        if not isinstance(limit, str):
            return _rounded(self.fraction(amount, full), up=up != self.removes)
        unit = limit.split()[1]
        return f"{_rounded(amount / self.units[unit], up=up)} {unit}"

    def _amount(self, limit: str) -> float:
        number, unit = limit.split()
        return float(number) * self.units[unit]

    def _expected(self, percent: str) -> str:
        least = "a fraction to remove in [0, 1)" if self.removes else "a fraction to keep in (0, 1]"
        amounts = f", or an amount such as {self.limit}='{_EXAMPLES[self.limit]}'" if self.limit in _EXAMPLES else ""
        example = f'"{percent}%"' if percent else 0.8 if self.removes else 0.05
        return f"{least}, for example {self.limit}={example}{amounts}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _rounded(value: float, *, up: bool) -> str:
    """Four significant digits."""
    step = 10.0 ** (np.floor(np.log10(max(value, 1e-12))) - 3)
    return f"{(np.ceil if up else np.floor)(value / step) * step:.6g}"


def _predicted(name: str) -> Callable[[Any, Sizes], float | None]:
    return lambda graph, widths: graph.amount(name, widths)  # type: ignore[no-any-return]


_EXAMPLES = {
    **{"macs": "10G", "params": "1M", "activations": "512 MiB"},
    **{"step_time": "80 ms", "train_memory": "8 GiB"},
}
RESOURCES = (
    Resource(
        "step_seconds",
        _predicted("step_seconds"),
        "training step",
        "ms",
        1e-3,
        limit="step_time",
        units=SECONDS,
        remedy="ranp.prune measures it; for ranp.allocate, graph.with_costs(step_seconds=ranp.measure_times(...))",
    ),
    Resource(
        "train_bytes",
        _predicted("train_bytes"),
        "training memory",
        "MiB",
        2**20,
        limit="train_memory",
        units=BYTES,
        remedy="ranp.prune predicts it; for ranp.allocate, graph.with_costs(train_bytes=predictor.formula())",
    ),
    Resource("macs", _predicted("macs"), "multiply-adds", "G", 1e9, units=COUNTS),
    Resource("params", _predicted("params"), "parameters", "M", 1e6, units=COUNTS),
    Resource(
        "activation_bytes",
        _predicted("activation_bytes"),
        "activations",
        "MiB",
        2**20,
        limit="activations",
        units=BYTES,
    ),
    Resource("neurons", _predicted("neurons"), "neurons", limit="sparsity", removes=True),
)
"""The resources of every network, one for each field of `Cost`: time and memory first, as in tables."""
