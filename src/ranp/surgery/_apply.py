"""Applying a plan to a model, and resizing models without values."""

import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import cache
from numbers import Integral

import torch
from torch import Tensor, nn

from ranp.arguments import Seed, checked
from ranp.errors import PlanError
from ranp.graph import ChannelGraph, Ints
from ranp.module_utils import all_modules, all_tensors, copy_model
from ranp.plan import Plan, Rescaling, SizeChange, Slice
from ranp.surgery._initialize import Weights, initialize


@checked
def apply(model: nn.Module, plan: Plan, *, weights: Weights = "keep", seed: Seed = 0) -> nn.Module:
    """Make the smaller model that a plan describes.

    Args:
        model: The full model, or one that differs from it in input channels or classes only; it is not changed.
        plan: What to keep.
        weights: `keep` copies the surviving weights exactly; `glorot` and `orthogonal` initialize them, see
            `initialize`.
        seed: Seed of the initialization.

    Returns:
        A new model of the same classes, dense and with ordinary parameters, in the memory format of the model's;
        parameters and modules that the model shares under several names are shared in the same way. Hooks are kept.

    Raises:
        PlanError: The plan was made for another model; nothing has been changed.
        TraceError: The model holds something that cannot be copied.
    """
    tensors = all_tensors(model, attributes=True)
    _check_fingerprint(plan, tensors, all_tensors(model).keys())
    cuts: dict[int, list[Slice]] = {}
    for entry in plan.slices:
        cuts.setdefault(id(tensors[entry.tensor]), []).append(entry)
    factors: dict[int, list[Rescaling]] = {}
    for change in plan.rescale if weights == "keep" else ():
        factors.setdefault(id(tensors[change.tensor]), []).append(change)
    # A norm's tensors and the layers around it keep the same channels.
    index = cache(lambda keep, device: torch.tensor(keep, device=device))
    small = copy_model(
        model,
        lambda tensor: _cut(_rescaled(tensor, factors.get(id(tensor), [])), cuts.get(id(tensor), []), index),
        hooks="all",
    )
    modules = all_modules(small)
    _cut_attributes(model, small, cuts, index)
    for setting in plan.settings:
        _set_size(modules, setting)
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
            tensors[name].data = _empty(full[name], shape)
        for entry in graph.attributes:
            _set_size(modules, SizeChange(entry.module, entry.name, int(sizes[entry.axis])), may_grow=True)
        yield
    finally:
        for name, data in full.items():
            tensors[name].data = data
        for module, attributes in saved.items():
            vars(module).update(attributes)


def _empty(like: Tensor, shape: list[int]) -> Tensor:
    """A meta or fake tensor; of meta tensors, `new_empty` is decomposed, which takes longer."""
    meta = type(like) is Tensor and like.is_meta
    return torch.empty(shape, dtype=like.dtype, device="meta") if meta else like.new_empty(shape)


def _cut_attributes(
    model: nn.Module,
    small: nn.Module,
    cuts: Mapping[int, list[Slice]],
    index: Callable[[tuple[int, ...], torch.device], Tensor],
) -> None:
    """Give the copy of a model the parts that it keeps of tensors that modules hold as ordinary attributes."""
    for before, after in zip(model.modules(), small.modules(), strict=True):
        for name, tensor in vars(before).items():
            if isinstance(tensor, Tensor) and id(tensor) in cuts:
                vars(after)[name] = _cut(tensor, cuts[id(tensor)], index)


def _check_fingerprint(plan: Plan, tensors: Mapping[str, Tensor], stored: Set[str]) -> None:
    """Refuse another model than the one the plan was made for; `stored` are the names of parameters and buffers."""
    missing, extra = plan.shapes.keys() - tensors.keys(), stored - plan.shapes.keys()
    if missing or extra:
        got = f"a model {'without' if missing else 'with'} {min(missing or extra)!r}"
        hint = "build the model as it was built when it was pruned"
        raise PlanError("apply", got=got, expected="the model the plan was made for", hint=hint)
    for change in plan.rescale:
        shape = tuple(tensors[change.tensor].shape) if change.tensor in tensors else ()
        if not 0 <= change.dim < len(shape) or max(change.at) >= shape[change.dim]:
            got, expected = f"shape {shape}", f"more than {max(change.at)} entries along dimension {change.dim}"
            raise PlanError(f"apply: {change.tensor}", got=got, expected=expected)
    for entry in plan.slices:
        shape = tuple(tensors[entry.tensor].shape) if entry.tensor in tensors else ()
        if not 0 <= entry.dim < len(shape) or shape[entry.dim] != entry.size:
            expected = f"size {entry.size} along dimension {entry.dim}"
            hint = "the plan was made for another model; only input channels and classes may differ"
            raise PlanError(f"apply: {entry.tensor}", got=f"shape {shape}", expected=expected, hint=hint)


def _rescaled(tensor: Tensor, entries: list[Rescaling]) -> Tensor:
    for entry in entries:
        at = torch.tensor(entry.at, device=tensor.device)
        tensor = tensor.detach().index_copy(entry.dim, at, tensor.detach().index_select(entry.dim, at) * entry.factor)
    return tensor


def _cut(tensor: Tensor, entries: list[Slice], index: Callable[[tuple[int, ...], torch.device], Tensor]) -> Tensor:
    if not entries:
        return tensor.detach().clone()
    # Selection returns tensors in the default order in memory; with dimensions in the tensor's own order it keeps that.
    order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    found = tensor.detach().permute(order)
    for entry in entries:
        found = found.index_select(order.index(entry.dim), index(entry.keep, tensor.device))
    return found.permute([order.index(dim) for dim in range(tensor.ndim)])


@cache
def _attribute(name: str) -> tuple[str, str | None]:
    """The attribute's name, and the place in it where it is a list or tuple: `normalized_shape[0]`."""
    match = re.fullmatch(r"(\w+)(?:\[(\d{1,4})\])?", name)
    return (match[1], match[2]) if match else ("", None)


def _set_size(modules: Mapping[str, nn.Module], setting: SizeChange, *, may_grow: bool = False) -> None:
    """Set a size of a module: a whole number that it holds, by itself or in a list; a plan may only shrink it.

    Plans from other sources cannot be trusted, so nothing else is set.
    """
    base, index = _attribute(setting.name)
    module = modules.get(setting.module)
    held = vars(module).get(base) if module is not None else None
    entries = list(held) if isinstance(held, (list, tuple)) else [held]
    place = int(index or 0)
    fits = isinstance(held, (list, tuple)) == (index is not None) and place < len(entries)
    present = entries[place] if fits else None
    most = setting.value if may_grow else present
    if type(present) is bool or not isinstance(present, Integral) or not 1 <= setting.value <= int(most or 0):
        got, expected = (
            f"{setting.name} = {setting.value}",
            "a size of a module of this model, not above the present one",
        )
        raise PlanError(f"apply: {setting.module or 'model'}", got=got, expected=expected)
    entries[place] = setting.value
    setattr(module, base, setting.value if index is None else tuple(entries) if isinstance(held, tuple) else entries)
