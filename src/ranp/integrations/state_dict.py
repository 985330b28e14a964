"""State dicts that contain a plan: a framework's own checkpoints then hold all that a pruned network needs.

A framework builds the full network by its own means and calls `load_state_dict`. If the state dict contains a plan, the
network is resized to it first. The plan is JSON, stored as the bytes of a tensor: loading it runs no code.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ranp.arguments import checked
from ranp.errors import PlanError
from ranp.module_utils import all_tensors, copy_model
from ranp.plan import Plan, read_plan
from ranp.surgery import apply

KEY = "ranp_plan"
M = TypeVar("M", bound=nn.Module)


class _Attached:
    """What is attached to a network: its full form, without values, and the plan that it was pruned by."""

    def __init__(self, model: nn.Module) -> None:
        self.full = copy_model(model, lambda tensor: tensor.to("meta"))
        self.plan: Plan | None = None

    def __deepcopy__(self, memo: Any) -> "_Attached":
        return copy(self)  # The full form and the plan never change.


@checked
def attach_plan(model: M) -> M:
    """Make the state dicts of a network contain its plan, and resize the network to the state dicts that it loads.

    Args:
        model: A full network, as it is built before it is pruned; it may be part of a larger one. It is returned, the
            same object; parameters whose size changes are replaced, so an optimizer must be created afterwards.

    Example:
        >>> import ranp
        >>> full = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 3))
        >>> graph = ranp.trace(full, torch.zeros(1, 1, 8, 8, 8))
        >>> scores = ranp.score(full, graph, [], criterion="uniform")
        >>> plan = ranp.allocate(graph, scores, ranp.Budget(macs=0.5))
        >>> pruned = shrink_in_place(attach_plan(full), ranp.apply(full, plan), plan)
        >>> stored = pruned.state_dict()
        >>> other = attach_plan(nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 3)))
        >>> other.load_state_dict(stored)
        <All keys matched successfully>
        >>> other[0].out_channels, attached_plan(other) == plan
        (4, True)
    """
    if _attached(model) is None:
        model._ranp = _Attached(model)  # type: ignore[assignment]
        model.register_load_state_dict_pre_hook(_before_loading)
        model.register_state_dict_post_hook(_add_plan)
    return model


@checked
def attached_plan(model: nn.Module) -> Plan | None:
    """The plan that a network was pruned by; None if it is still full, or was never given to `attach_plan`."""
    attached = _attached(model)
    return attached.plan if attached else None


@checked
def shrink_in_place(model: M, small: nn.Module, plan: Plan) -> M:
    """Turn a full network into its pruned copy, in place: whoever holds it or one of its modules has the pruned one.

    Args:
        model: The full network, given to `attach_plan` before. It is returned, in the training mode it was in.
        small: The pruned copy that `ranp.prune` or `ranp.apply` returned.
        plan: Its plan.

    Raises:
        PlanError: The network was not given to `attach_plan` while it was full.
    """
    attached = _attached(model)
    if attached is None:
        hint = "call attach_plan(network) while it is full"
        raise PlanError("shrink_in_place", "the network has not been given to attach_plan", hint=hint)
    replaced: dict[int, Any] = {}
    tensors = all_tensors(small, attributes=True)
    sliced = {id(tensors[entry.tensor]) for entry in plan.slices}
    for old, new in zip(model.modules(), small.modules(), strict=True):
        for held, given in ((old._parameters, new._parameters), (old._buffers, new._buffers)):
            for name, tensor in given.items():
                present = held[name]
                if tensor is None or present is None:
                    continue
                if present.shape != tensor.shape:
                    # Modules that share a tensor share its replacement.
                    held[name] = replaced.setdefault(id(tensor), _like(tensor, present))
                elif not tensor.is_meta:
                    present.data.copy_(tensor)
        for name, tensor in vars(new).items():
            if id(tensor) in sliced:
                vars(old)[name] = tensor
    for change in plan.settings:
        attribute = change.name.partition("[")[0]
        value = getattr(small.get_submodule(change.module), attribute)
        setattr(model.get_submodule(change.module), attribute, value)
    attached.plan = plan
    return model


def _like(tensor: Tensor, present: Tensor) -> Any:
    """A tensor with the device, class and dtype of another one; its values are undefined if it has none itself."""
    empty = torch.empty(tensor.shape, dtype=present.dtype, device=present.device)
    found = empty if tensor.is_meta else empty.copy_(tensor.detach())
    return nn.Parameter(found, requires_grad=present.requires_grad) if isinstance(present, nn.Parameter) else found


@checked
def resize_to_state_dict(model: nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> bool:
    """Resize a network to the plan in a state dict, in place; the values of resized parameters are undefined.

    Args:
        model: A network given to `attach_plan`.
        state_dict: A state dict, with a plan or without.
        prefix: Prefix of the network's names in the state dict.

    Returns:
        Whether the network was resized; an optimizer that was created before no longer holds its parameters then.

    Raises:
        PlanError: What is stored is no plan, or one for another network.
    """
    attached, stored = _attached(model), state_dict.get(prefix + KEY)
    if stored is None or attached is None:
        return False
    if not isinstance(stored, Tensor) or stored.dtype != torch.uint8 or stored.ndim != 1:
        raise PlanError(KEY, "is not a plan as attach_plan stores it: the bytes of a JSON text in a tensor")
    plan = read_plan(stored.cpu().numpy().tobytes(), place=KEY)
    if plan == attached.plan:
        return False
    # From the full network: the present shape may be that of another plan.
    shrink_in_place(model, apply(attached.full, plan), plan)
    return True


def _before_loading(module: nn.Module, state_dict: Any, prefix: str, *rest: Any) -> None:
    resize_to_state_dict(module, state_dict, prefix)
    state_dict.pop(prefix + KEY, None)


def _add_plan(module: nn.Module, state_dict: Any, prefix: str, metadata: Any) -> None:
    plan = attached_plan(module)
    if plan is not None:
        state_dict[prefix + KEY] = torch.frombuffer(bytearray(plan.to_json().encode()), dtype=torch.uint8)


def _attached(model: nn.Module) -> _Attached | None:
    return vars(model).get("_ranp")
