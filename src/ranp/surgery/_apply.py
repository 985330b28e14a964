"""Applying a plan to a model, and resizing models without values."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from numbers import Integral

import torch
from torch import Tensor, nn

from ranp.errors import PlanError
from ranp.graph import ChannelGraph, Ints
from ranp.module_utils import all_modules, all_tensors, copy_model
from ranp.plan import Plan, SizeChange, Slice
from ranp.surgery._initialize import Weights, initialize

# The only attributes that a plan may set, because plans from other sources cannot be trusted.
_SIZES = (
    "in_channels out_channels groups num_features input_size num_channels num_groups in_features out_features "
    "num_parameters normalized_shape"
)
_SETTABLE = frozenset(_SIZES.split())


def apply(model: nn.Module, plan: Plan, *, weights: Weights = "keep", seed: int = 0) -> nn.Module:
    """Make the smaller model that a plan describes.

    Args:
        model: The full model, or one that differs from it in input channels or classes only; it is not changed.
        plan: What to keep.
        weights: `keep` copies the surviving weights exactly; `glorot` and `orthogonal` initialize them, see
            `initialize`.
        seed: Seed of the initialization.

    Returns:
        A new model of the same classes, dense and with ordinary parameters; parameters and modules that the model
        shares under several names are shared in the same way.

    Raises:
        PlanError: The plan was made for another model; nothing has been changed.
        TraceError: The model holds something that cannot be copied.
    """
    tensors = all_tensors(model)
    _check_fingerprint(plan, tensors)
    cuts: dict[int, list[Slice]] = {}
    for entry in plan.slices:
        cuts.setdefault(id(tensors[entry.tensor]), []).append(entry)
    # A norm's tensors and the layers around it keep the same channels.
    index = cache(lambda keep, device: torch.tensor(keep, device=device))
    small = copy_model(model, lambda tensor: _cut(tensor, cuts.get(id(tensor), []), index))
    modules = all_modules(small)
    for change in plan.settings:
        _set_size(modules, change)
    if weights != "keep":
        initialize(small, weights, seed)
    return small


@contextmanager
def resized(
    modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], graph: ChannelGraph, widths: Ints
) -> Iterator[None]:
    """Temporarily give a model of meta or fake tensors the shapes that it has at other widths, of shape (groups,).

    No copy is made and no channel is chosen, because a model without values has nothing but shapes; widths may also
    be larger than the full ones.
    """
    shapes: dict[str, list[int]] = {}
    for group, width in zip(graph.groups, widths.tolist(), strict=True):
        for member in group.members if width != group.width else ():
            shape = shapes.setdefault(member.parameter, list(graph.shapes[member.parameter]))
            shape[member.dim] += (width - group.width) * member.positions.shape[1]
    full = {name: tensors[name].data for name in shapes}
    saved = {module: dict(vars(module)) for module in {modules[entry.module] for entry in graph.attributes}}
    sizes = graph.costs.axes_at(widths)
    try:
        for name, shape in shapes.items():
            tensors[name].data = full[name].new_empty(shape)
        for entry in graph.attributes:
            _set_size(modules, SizeChange(entry.module, entry.name, int(sizes[entry.axis])), may_grow=True)
        yield
    finally:
        for name, data in full.items():
            tensors[name].data = data
        for module, attributes in saved.items():
            vars(module).update(attributes)


def _check_fingerprint(plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    missing, extra = plan.shapes.keys() - tensors.keys(), tensors.keys() - plan.shapes.keys()
    if missing or extra:
        got = f"a model {'without' if missing else 'with'} {min(missing or extra)!r}"
        hint = "build the model as it was built when it was pruned"
        raise PlanError("apply", got=got, expected="the model the plan was made for", hint=hint)
    for entry in plan.slices:
        shape = tuple(tensors[entry.tensor].shape) if entry.tensor in tensors else ()
        if not 0 <= entry.dim < len(shape) or shape[entry.dim] != entry.size:
            expected = f"size {entry.size} along dimension {entry.dim}"
            hint = "the plan was made for another model; only input channels and classes may differ"
            raise PlanError(f"apply: {entry.tensor}", got=f"shape {shape}", expected=expected, hint=hint)


def _cut(tensor: Tensor, entries: list[Slice], index: Callable[[tuple[int, ...], torch.device], Tensor]) -> Tensor:
    found = tensor.detach() if entries else tensor.detach().clone()
    for entry in entries:
        found = found.index_select(entry.dim, index(entry.keep, tensor.device))
    return found


def _set_size(modules: Mapping[str, nn.Module], setting: SizeChange, *, may_grow: bool = False) -> None:
    """Set a size of a module; a plan may only shrink it."""
    match = re.fullmatch(r"(\w+)(?:\[(\d)\])?", setting.name)
    base, index = (match[1], match[2]) if match else ("", None)
    module = modules.get(setting.module)
    held = getattr(module, base, None) if base in _SETTABLE else None
    entries = list(held) if isinstance(held, tuple) else [held]
    place = int(index or 0)
    fits = module is not None and isinstance(held, tuple) == (index is not None) and place < len(entries)
    present = entries[place] if fits else None
    most = setting.value if may_grow else present
    if module is None or not isinstance(present, Integral) or not 1 <= setting.value <= int(most or 0):
        got, expected = (
            f"{setting.name} = {setting.value}",
            "a size of a module of this model, not above the present one",
        )
        raise PlanError(f"apply: {setting.module or 'model'}", got=got, expected=expected)
    entries[place] = setting.value
    setattr(module, base, tuple(entries) if index is not None else setting.value)
