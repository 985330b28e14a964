"""A plan: every decision as plain data that can be printed, compared, stored and replayed."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from ranp.budget import Budget
from ranp.costs import Cost
from ranp.errors import PlanError, RanpError
from ranp.graph import ChannelGraph
from ranp.tables import cost_table, html_text, width_table

FORMAT_VERSION = 1
# More indices than any network has channels: a plan from elsewhere must not exhaust memory.
_MOST_INDICES = 1 << 22
_RUN = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
T = TypeVar("T")


@dataclass(frozen=True)
class Slice:
    """What to keep along one dimension of one parameter or buffer.

    Attributes:
        tensor: Its name in the model.
        dim: The dimension.
        size: Its full size.
        keep: Kept indices, ascending.
        reads: Whether the tensor is a weight that reads the channels along this dimension.
    """

    tensor: str
    dim: int
    size: int
    keep: tuple[int, ...]
    reads: bool


@dataclass(frozen=True)
class Setting:
    """A number to set in a module, such as its `out_channels`."""

    module: str
    name: str
    value: int


@dataclass(frozen=True)
class Plan:
    """Which channels stay, what that costs, and how it was decided.

    Attributes:
        keep: For each group the channels that stay.
        slices: The same, for each parameter and buffer: all that surgery needs.
        settings: Numbers that modules keep besides their parameters.
        shapes: The model's fingerprint: names and shapes of all its parameters and buffers.
        widths: Neurons that stay, by layer.
        full_widths: Neurons of the full model, by layer.
        cost: Cost of the pruned model at the traced shape.
        full_cost: Cost of the full model.
        has_cross_channel_norm: Whether removing channels changes others (layer norms), so that the pruned model cannot
            be compared exactly with the masked one.
        budget: What was asked.
        criterion: How channels were scored.
        importance: Reading of importance.
        resource_weight: Weight of the resource term.
        seed: Seed of the scores.
        min_width: Channels that every group kept at least.
        round_to: Widths are multiples of this, where groups are wide enough.
        versions: Versions of ranp and torch that made the plan.
    """

    keep: Mapping[str, tuple[int, ...]] = field(repr=False)
    slices: tuple[Slice, ...] = field(repr=False)
    settings: tuple[Setting, ...] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    widths: Mapping[str, int]
    full_widths: Mapping[str, int] = field(repr=False)
    cost: Cost
    full_cost: Cost
    has_cross_channel_norm: bool
    budget: Budget
    criterion: str
    importance: str
    resource_weight: float
    seed: int
    min_width: int
    round_to: int
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """The plan as JSON, the same text for the same plan."""
        data = {"format": "ranp-plan", "version": FORMAT_VERSION, **asdict(self)}
        data["keep"] = {name: pack(kept) for name, kept in self.keep.items()}
        data["slices"] = [{**asdict(entry), "keep": pack(entry.keep)} for entry in self.slices]
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        """The plan in a notebook: how it was decided, what it costs, and how wide every layer becomes."""
        asked = ", ".join(f"{name}={value:g}" for name, value in self.budget.given())
        how = f"Plan by {self.criterion}, budget {asked}, seed {self.seed}"
        rows = [(layer, str(self.full_widths[layer]), str(width)) for layer, width in self.widths.items()]
        return html_text(how) + cost_table(self.full_cost, self.cost).html() + width_table(rows).html()

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan; every field is checked, and nothing is executed.

        Raises:
            PlanError: The text is not a plan, or was made by a newer version of the format.
        """
        try:
            data = json.loads(text)
            return _read_plan(data)
        except RanpError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise PlanError(
                "plan",
                got=f"{type(error).__name__}: {error}",
                expected=f"JSON as ranp writes it, format version {FORMAT_VERSION}",
                hint="the file may be damaged: make the plan again or restore it",
            ) from error


def make_plan(graph: ChannelGraph, keep: Mapping[str, np.ndarray[Any, Any]], **how: Any) -> Plan:
    """Spell out what keeping some channels of each group means for every parameter, module and layer.

    Args:
        graph: The traced model.
        keep: Kept channels of each group, ascending.
        how: The remaining fields of `Plan`: budget, criterion and so on.
    """
    widths = np.array([len(keep[group.name]) for group in graph.groups], dtype=np.int64)
    stays = np.zeros(int(graph.offsets[-1]) + 1, dtype=bool)
    stays[-1] = True  # number -1: channels that always stay
    for start, group in zip(graph.offsets, graph.groups, strict=False):
        stays[start + keep[group.name]] = True
    sizes = graph.costs.axes_at(widths)
    return Plan(
        keep={name: tuple(int(index) for index in kept) for name, kept in keep.items()},
        slices=_slices(graph, keep),
        settings=tuple(Setting(a.module, a.name, int(sizes[a.axis])) for a in graph.attributes),
        shapes=graph.shapes,
        widths={layer.name: int(stays[layer.channels].sum()) for layer in graph.layers},
        full_widths={layer.name: layer.width for layer in graph.layers},
        cost=graph.cost(widths),
        full_cost=graph.cost(),
        has_cross_channel_norm=graph.has_cross_channel_norm,
        **how,
    )


def _slices(graph: ChannelGraph, keep: Mapping[str, np.ndarray[Any, Any]]) -> tuple[Slice, ...]:
    stays: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
    reads: set[tuple[str, int]] = set()
    for group in graph.groups:
        gone = np.ones(group.width, dtype=bool)
        gone[keep[group.name]] = False
        for member in group.members if gone.any() else ():
            place = (member.parameter, member.dim)
            if place not in stays:
                stays[place] = np.ones(graph.shapes[member.parameter][member.dim], dtype=bool)
            stays[place][member.positions[gone]] = False
            if member.reads:
                reads.add(place)
    return tuple(
        Slice(name, dim, len(kept), tuple(np.flatnonzero(kept).tolist()), (name, dim) in reads)
        for (name, dim), kept in stays.items()
    )


# -- JSON --------------------------------------------------------------------------------------------------------


def pack(indices: tuple[int, ...]) -> str:
    """Ascending indices as runs.

    Example:
        >>> pack((0, 1, 2, 5, 7, 8))
        '0-2,5,7-8'
    """
    if not indices:
        return ""
    array = np.asarray(indices)
    runs = np.split(array, np.flatnonzero(np.diff(array) != 1) + 1)
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def unpack(text: str, size: int) -> tuple[int, ...]:
    """The indices that `pack` wrote.

    Raises:
        PlanError: They are not ascending, or not below `size`.

    Example:
        >>> unpack("0-2,5", 6)
        (0, 1, 2, 5)
    """
    found: list[int] = []
    for run in text.split(",") if text else []:
        match = re.fullmatch(_RUN, run)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
        if not match or first > last or last >= size or (found and first <= found[-1]):
            raise PlanError("plan", got=f"indices {run!r}", expected=f"ascending indices below {size}")
        found.extend(range(first, last + 1))
    return tuple(found)


def _read_plan(data: Any) -> Plan:
    data = _typed(data, dict)
    if data.pop("format", None) != "ranp-plan":
        raise PlanError("plan", got="another kind of file", expected='JSON with "format": "ranp-plan"')
    if type(version := data.pop("version", None)) is not int or version != FORMAT_VERSION:
        raise PlanError(
            "plan",
            got=f"format version {version!r}",
            expected=f"version {FORMAT_VERSION}",
            hint="update ranp",
        )
    packed = [*data["keep"].values(), *(entry["keep"] for entry in data["slices"])]
    if sum(_length(_typed(text, str)) for text in packed) > _MOST_INDICES:
        raise PlanError("plan", got="too many indices", expected=f"at most {_MOST_INDICES}")
    slices = tuple(_read_slice(entry) for entry in _typed(data.pop("slices"), list))
    if len({(entry.tensor, entry.dim) for entry in slices}) < len(slices):
        raise PlanError("plan", got="a dimension that is sliced twice", expected="one slice per dimension")
    settings = tuple(
        _read(Setting, entry, module=str, name=str, value=int) for entry in _typed(data.pop("settings"), list)
    )
    given = {name: value for name, value in _typed(data.pop("budget"), dict).items() if value is not None}
    plan = Plan(
        keep=_mapping(data.pop("keep"), lambda text: unpack(text, _MOST_INDICES)),
        slices=slices,
        settings=settings,
        shapes=_mapping(data.pop("shapes"), lambda shape: tuple(_typed(size, int) for size in _typed(shape, list))),
        widths=_mapping(data.pop("widths"), lambda width: _typed(width, int)),
        full_widths=_mapping(data.pop("full_widths"), lambda width: _typed(width, int)),
        cost=_read_cost(data.pop("cost")),
        full_cost=_read_cost(data.pop("full_cost")),
        has_cross_channel_norm=_typed(data.pop("has_cross_channel_norm"), bool),
        budget=Budget(**given),
        criterion=_typed(data.pop("criterion"), str),
        importance=_typed(data.pop("importance"), str),
        resource_weight=_finite(data.pop("resource_weight")),
        seed=_typed(data.pop("seed"), int),
        min_width=_at_least(1, data.pop("min_width")),
        round_to=_at_least(1, data.pop("round_to")),
        versions=_mapping(data.pop("versions"), lambda text: _typed(text, str)),
    )
    if data:
        raise PlanError("plan", got=f"unknown field {next(iter(data))!r}", expected="the fields ranp writes")
    return plan


def _read_slice(entry: Any) -> Slice:
    entry = dict(_typed(entry, dict))
    size = _typed(entry["size"], int)
    entry["keep"] = unpack(_typed(entry["keep"], str), size)
    if not entry["keep"]:
        raise PlanError("plan", got=f"nothing kept of {entry['tensor']!r}", expected="at least one index")
    return _read(Slice, entry, tensor=str, dim=int, size=int, keep=tuple, reads=bool)


def _read_cost(entry: Any) -> Cost:
    return _read(Cost, entry, macs=int, params=int, activation_bytes=int, neurons=int)


def _read(kind: Callable[..., T], entry: Any, **types: Any) -> T:
    entry = _typed(entry, dict)
    if entry.keys() != types.keys():
        raise PlanError("plan", got=f"fields {sorted(entry)}", expected=f"fields {sorted(types)}")
    return kind(**{name: _typed(entry[name], expected) for name, expected in types.items()})


def _length(text: str) -> int:
    """Number of indices in packed runs, found without unpacking them."""
    return sum(int(last or first) - int(first) + 1 for first, last in _RUN.findall(text))


def _finite(value: Any) -> float:
    number: float = _typed(value, int | float)
    if not math.isfinite(number):
        raise PlanError("plan", got=str(number), expected="a finite number")
    return number


def _at_least(least: int, value: Any) -> int:
    number: int = _typed(value, int)
    if number < least:
        raise PlanError("plan", got=str(number), expected=f"at least {least}")
    return number


def _mapping(value: Any, read: Callable[[Any], T]) -> dict[str, T]:
    return {name: read(item) for name, item in _typed(value, dict).items()}


def _typed(value: Any, expected: Any) -> Any:
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise PlanError("plan", got=f"{str(value)[:40]!r}", expected=str(expected))
    return value
