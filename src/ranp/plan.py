"""A plan: every decision as plain data that can be printed, compared, stored and replayed."""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from ranp.arguments import Amount, Count, NonNegative, Seed, checked, describe
from ranp.budget import Budget
from ranp.costs import Cost
from ranp.deprecation import RenamedAttribute, renamed_names
from ranp.errors import PlanError
from ranp.files import read_json
from ranp.graph import ChannelGraph, Ints
from ranp.tables import cost_table, html_text, width_table

FORMAT, FORMAT_VERSION = "ranp-plan", 2
# More indices than any network has channels: a plan from an unknown source must not exhaust memory.
_MOST_INDICES = 1 << 22
_RUN = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")


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
    dim: Amount
    size: Count
    keep: tuple[int, ...]
    reads: bool


@dataclass(frozen=True)
class SizeChange:
    """A size to set in a module, such as its `out_channels`."""

    module: str
    name: str
    value: Count


@dataclass(frozen=True)
class Rescaling:
    """What to multiply a part of a parameter by.

    It makes up for a number in the forward that depends on how many channels there are, such as the square root of the
    head size that attention divides by.

    Attributes:
        tensor: Name of the parameter in the model.
        dim: A dimension of it.
        at: Indices along it in the full model, ascending.
        factor: What the entries there are multiplied by.
    """

    tensor: str
    dim: int
    at: tuple[int, ...]
    factor: float


@dataclass(frozen=True)
class Plan:
    """Which channels are kept, what that costs, and how it was decided.

    Attributes:
        keep: For each group the kept channels.
        slices: The same, for each parameter and buffer: all that surgery needs.
        settings: Sizes that modules hold besides their parameters.
        shapes: The model's fingerprint: names and shapes of all its parameters and buffers.
        widths: Kept neurons, by layer.
        full_widths: Neurons of the full model, by layer.
        cost: Cost of the pruned model at the traced shape.
        full_cost: Cost of the full model.
        has_cross_channel_norm: Whether removing channels changes others (layer norms), so that the masked model is one
            whose norms leave the removed channels out.
        budget: The limits that the plan meets.
        criterion: How channels were scored.
        importance: Reading of importance.
        resource_weight: Weight of the resource term.
        seed: Seed of the scores.
        min_width: Channels that every group kept at least; None for the default of `ranp.allocate`, as below.
        round_to: Widths are multiples of this, or full widths.
        versions: Versions of ranp and torch that made the plan.
        policy: How widths were chosen; see `ranp.allocate`.
        rescale: Parts of parameters to multiply by a factor, unless weights are initialized again.
    """

    keep: Mapping[str, tuple[int, ...]] = field(repr=False)
    slices: tuple[Slice, ...] = field(repr=False)
    settings: tuple[SizeChange, ...] = field(repr=False)
    shapes: Mapping[str, tuple[Amount, ...]] = field(repr=False)
    widths: Mapping[str, Amount]
    full_widths: Mapping[str, Count] = field(repr=False)
    cost: Cost
    full_cost: Cost
    has_cross_channel_norm: bool
    budget: Budget
    criterion: str
    importance: str
    resource_weight: NonNegative
    seed: Seed
    min_width: Count | None
    round_to: Count | None
    versions: Mapping[str, str]
    policy: str = "threshold"
    rescale: tuple[Rescaling, ...] = field(default=(), repr=False)
    mixes = RenamedAttribute("has_cross_channel_norm")
    lam = RenamedAttribute("resource_weight")

    def to_json(self) -> str:
        """The plan as JSON, the same text for the same plan."""
        data = {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self)}
        data["keep"] = {name: pack(kept) for name, kept in self.keep.items()}
        data["slices"] = [{**entry, "keep": pack(entry["keep"])} for entry in data["slices"]]
        data |= {"cost": self.cost.known(), "full_cost": self.full_cost.known()}
        data["rescale"] = [{**entry, "at": pack(entry["at"])} for entry in data["rescale"]]
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        """The plan in a notebook: how it was decided, what it costs, and how wide every layer becomes."""
        how = f"Plan by {self.criterion}, budget {self.budget}, seed {self.seed}"
        rows = [(layer, str(self.full_widths[layer]), str(width)) for layer, width in self.widths.items()]
        return html_text(how) + cost_table(self.full_cost, self.cost).html() + width_table(rows).html()

    @classmethod
    @checked
    def from_json(cls, text: str) -> "Plan":
        """Read a plan; every field is checked, and nothing is executed.

        Raises:
            PlanError: The text is not a plan, or was written by a newer version of ranp.
        """
        return read_plan(text, place="plan")


def make_plan(graph: ChannelGraph, keep: Mapping[str, np.ndarray[Any, Any]], **how: Any) -> Plan:
    """Derive a plan from the kept channels of each group (ascending); `how` are the fields from `Plan.budget` on."""
    widths = np.array([len(keep[group.name]) for group in graph.groups], dtype=np.int64)
    kept_channels = np.zeros(int(graph.offsets[-1]) + 1, dtype=bool)
    kept_channels[-1] = True  # number -1: channels that are always kept
    for start, group in zip(graph.offsets, graph.groups, strict=False):
        kept_channels[start + keep[group.name]] = True
    sizes = graph.costs.axes_at(widths)
    return Plan(
        keep={name: tuple(int(index) for index in kept) for name, kept in keep.items()},
        slices=_slices(graph, keep),
        settings=tuple(SizeChange(a.module, a.name, int(sizes[a.axis])) for a in graph.attributes),
        rescale=_rescalings(graph, sizes),
        shapes=graph.shapes,
        widths={layer.name: int(kept_channels[layer.channels].sum()) for layer in graph.layers},
        full_widths={layer.name: layer.width for layer in graph.layers},
        cost=graph.cost(widths),
        full_cost=graph.cost(),
        has_cross_channel_norm=graph.has_cross_channel_norm,
        **how,
    )


def _rescalings(graph: ChannelGraph, sizes: Ints) -> tuple[Rescaling, ...]:
    full = graph.costs.axes_at(graph.widths)
    found = [(entry, (sizes[entry.axis] / full[entry.axis]) ** entry.exponent) for entry in graph.rescales]
    return tuple(
        Rescaling(entry.parameter, entry.dim, tuple(entry.positions.tolist()), float(factor))
        for entry, factor in found
        if factor != 1
    )


def _slices(graph: ChannelGraph, keep: Mapping[str, np.ndarray[Any, Any]]) -> tuple[Slice, ...]:
    stays: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
    reads: set[tuple[str, int]] = set()
    for group in graph.groups:
        gone = np.delete(np.arange(group.width), keep[group.name])
        for member in group.members if len(gone) else ():
            place = (member.parameter, member.dim)
            if place not in stays:
                stays[place] = np.ones(graph.shapes[member.parameter][member.dim], dtype=bool)
            stays[place][member.positions[gone]] = False
            if member.reads:
                reads.add(place)
    return tuple(
        Slice(*place, len(kept), tuple(np.flatnonzero(kept).tolist()), place in reads) for place, kept in stays.items()
    )


# -- JSON --------------------------------------------------------------------------------------------------------


def pack(indices: tuple[int, ...]) -> str:
    """Ascending indices as runs, such as `0-2,5,7-8`."""
    runs = np.split(np.asarray(indices), np.flatnonzero(np.diff(indices) != 1) + 1) if indices else []
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def unpack(text: str, size: int) -> tuple[int, ...]:
    """The indices that `pack` wrote; a ValueError says that they are not ascending, or not below `size`."""
    found: list[int] = []
    for run in text.split(",") if text else []:
        match = _RUN.fullmatch(run)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if first > last or last >= size or (found and first <= found[-1]):
            raise ValueError(f"the indices {run!r:.40} are not ascending, or not below {size}")
        found.extend(range(first, last + 1))
    return tuple(found)


def read_plan(source: Path | str | bytes, *, place: str = "") -> Plan:
    """Read a plan from a file, text or bytes, which a `PlanError` calls `place`; see `ranp.files.read_json`."""
    upgrades = {1: _from_version_1}
    data = read_json(source, format=FORMAT, version=FORMAT_VERSION, upgrades=upgrades, error=PlanError, place=place)
    try:
        return _plan_of(data)
    except ValueError as problem:  # a BudgetError is one, too
        hint = "the file may be damaged: restore it or make the plan again"
        raise PlanError(place or str(source), str(problem), hint=hint) from problem


def _plan_of(data: dict[str, Any]) -> Plan:
    del data["format"], data["version"]
    _unpack_indices(data)
    if "budget" in data:
        # Limits that are not set may be left out.
        data["budget"] = dict.fromkeys(_hints(Budget)) | {"custom": {}} | _typed(dict, data["budget"], "budget")
    plan: Plan = _read(Plan, data, "the plan")
    _require_consistent(plan)
    return plan


def _require_consistent(plan: Plan) -> None:
    """Raise a ValueError where parts of a plan contradict each other."""
    if not all(entry.keep for entry in plan.slices):
        raise ValueError("a slice keeps nothing of its tensor")
    if not all(entry.at and entry.factor > 0 for entry in plan.rescale):
        raise ValueError("a rescaling is of no entries, or its factor is not positive")
    if len({(entry.tensor, entry.dim) for entry in plan.slices}) < len(plan.slices):
        raise ValueError("a dimension of a tensor is sliced twice")
    for entry in plan.slices:
        shape = plan.shapes.get(entry.tensor, ())
        if entry.dim >= len(shape) or shape[entry.dim] != entry.size:
            raise ValueError(f"a slice of dimension {entry.dim} of {entry.tensor!r:.60} does not fit its shape")
    if len({(entry.module, entry.name) for entry in plan.settings}) < len(plan.settings):
        raise ValueError("a size of a module is set twice")
    if plan.widths.keys() != plan.full_widths.keys():
        raise ValueError("widths and full_widths are of different layers")
    if any(width > plan.full_widths[name] for name, width in plan.widths.items()):
        raise ValueError("a layer is wider than in the full model")
    counts = ("macs", "params", "activation_bytes", "neurons")
    if any(getattr(plan.cost, name) > getattr(plan.full_cost, name) for name in counts):
        raise ValueError("the cost is above that of the full model")


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 renamed two fields."""
    renamed = {"mixes": "has_cross_channel_norm", "lam": "resource_weight"}
    return {renamed.get(name, name): value for name, value in data.items()}


def _unpack_indices(data: dict[str, Any]) -> None:
    """Replace packed indices by tuples, once it is known that they fit in memory."""
    keep, slices = _typed(dict, data.get("keep"), "keep"), _typed(list, data.get("slices"), "slices")
    rescale = _typed(list, data.get("rescale", []), "rescale")
    packed = [
        *keep.values(),
        *(_typed(dict, entry, "slices").get("keep") for entry in slices),
        *(_typed(dict, entry, "rescale").get("at") for entry in rescale),
    ]
    runs = (run for text in packed for run in _RUN.findall(_typed(str, text, "keep")))
    if sum(max(int(last or first) - int(first) + 1, 0) for first, last in runs) > _MOST_INDICES:
        raise ValueError(f"it keeps more than {_MOST_INDICES} indices")
    data["keep"] = {name: unpack(text, _MOST_INDICES) for name, text in keep.items()}
    for entry in slices:
        entry["keep"] = unpack(entry["keep"], _typed(int, entry.get("size"), "size"))
    for entry in rescale:
        entry["at"] = unpack(entry["at"], _MOST_INDICES)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def _required(kind: Any) -> frozenset[str]:
    """Names of the fields without a default."""
    return frozenset(entry.name for entry in fields(kind) if entry.default is MISSING)


def _read(kind: Any, value: Any, place: str) -> Any:
    """A value of an annotated type from JSON, in which indices have been unpacked."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _read_fields(kind, _typed(dict, value, place), place)
    if origin in (Union, UnionType):
        same = (option for option in arguments if option is type(value))
        return None if value is None else _read(next(same, arguments[0]), value, place)
    if isinstance(value, tuple):
        return value  # indices, checked when they were unpacked
    if origin is tuple:
        return tuple(_read_all(arguments[0], _typed(list, value, place), place))
    if origin is Mapping:
        entries = _typed(dict, value, place)
        return dict(zip(entries, _read_all(arguments[1], entries.values(), place), strict=True))
    return next(iter(_read_all(kind, [value], place)))


def _read_all(kind: Any, values: Collection[Any], place: str) -> Collection[Any]:
    """Many values of one annotated type."""
    base, *musts = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if base not in (bool, int, float, str):
        return [_read(kind, value, place) for value in values]
    found = values if {*map(type, values)} == {base} != {float} else [_typed(base, value, place) for value in values]
    for must in musts:
        if not all(map(must.hold, found)):
            odd = next(value for value in found if not must.hold(value))
            raise ValueError(f"{place} must be {must.expected}, not {describe(odd)}")
    return found


def _read_fields(make: Any, entries: dict[str, Any], place: str) -> Any:
    """An instance of a dataclass."""
    hints, required = _hints(make), _required(make)
    if odd := (required - entries.keys()) | (entries.keys() - hints.keys()):
        name = min(odd)
        raise ValueError(f"{place} has {'no' if name in hints else 'the unknown'} field {name!r:.40}")
    return make(**{name: _read(hints[name], entry, name) for name, entry in entries.items()})


def _typed(kind: Any, value: Any, place: str) -> Any:
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{place} must be of type {kind.__name__}, not {ascii(value)[:40]}")
    return value


if not TYPE_CHECKING:
    __getattr__ = renamed_names(__name__, {"Setting": "SizeChange"})
