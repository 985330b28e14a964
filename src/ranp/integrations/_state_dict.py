"""State dicts that carry a plan: a framework's own checkpoints then hold all that a pruned network needs.

A framework builds the full network by its own means and calls `load_state_dict`. If the state dict has a plan in it,
the network takes the plan's shape first. The plan is JSON, as bytes in a tensor: loading one runs no code.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ranp.errors import PlanError
from ranp.module_utils import copy_model
from ranp.plan import Plan
from ranp.surgery import apply

KEY = "ranp_plan"
M = TypeVar("M", bound=nn.Module)


class _Carrier:
    """What a network remembers: its full form, without values, and the plan that it was pruned by."""

    def __init__(self, model: nn.Module) -> None:
        self.full = copy_model(model, lambda tensor: tensor.to("meta"))
        self.plan: Plan | None = None

    def __deepcopy__(self, memo: Any) -> "_Carrier":
        made = object.__new__(_Carrier)
        made.full, made.plan = self.full, self.plan  # neither ever changes
        return made


def attach_plan(model: M) -> M:
    """Have the state dicts of a full network carry its plan from here on, and have it follow those that it loads.

    Args:
        model: A full network, as it is built before it is pruned; it may be part of a larger one. It stays the same
            object: parameters whose size changes are replaced, so that an optimizer is to be made afterwards.

    Returns:
        The same network.

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
    if _carrier(model) is None:
        model._ranp = _Carrier(model)  # type: ignore[assignment]
        model.register_load_state_dict_pre_hook(_follow)
        model.register_state_dict_post_hook(_add)
    return model


def attached_plan(model: nn.Module) -> Plan | None:
    """The plan that a network was pruned by; none if it is still full, or was never given to `attach_plan`."""
    carrier = _carrier(model)
    return carrier.plan if carrier else None


def shrink_in_place(model: M, small: nn.Module, plan: Plan) -> M:
    """Make a network what its pruned copy is, in place; who holds the network or a module of it holds the pruned one.

    Args:
        model: The full network, given to `attach_plan` before.
        small: What `ranp.prune` or `ranp.apply` made of it.
        plan: The plan it was made by.

    Returns:
        The same network, in the training mode it was in.

    Raises:
        PlanError: The network was not given to `attach_plan` while it was full.
    """
    carrier = _carrier(model)
    if carrier is None:
        raise PlanError(
            "shrink_in_place", got="a network unknown to attach_plan", expected="attach_plan(network) before it"
        )
    made: dict[int, Any] = {}
    for old, new in zip(model.modules(), small.modules(), strict=True):
        for kept, given in ((old._parameters, new._parameters), (old._buffers, new._buffers)):
            for name, tensor in given.items():
                held = kept[name]
                if tensor is None or held is None:
                    continue
                if held.shape != tensor.shape:
                    # What modules share, they share afterwards.
                    kept[name] = made.setdefault(id(tensor), _like(tensor, held))
                elif not tensor.is_meta:
                    held.data.copy_(tensor)
    modules = dict(small.named_modules(remove_duplicate=False))
    for setting in plan.settings:
        attribute = setting.name.partition("[")[0]
        setattr(model.get_submodule(setting.module), attribute, getattr(modules[setting.module], attribute))
    carrier.plan = plan
    return model


def _like(tensor: Tensor, held: Tensor) -> Any:
    """A tensor of another's device, kind and precision, without its values if it has none."""
    empty = torch.empty(tensor.shape, dtype=held.dtype, device=held.device)
    found = empty if tensor.is_meta else empty.copy_(tensor.detach())
    return nn.Parameter(found, requires_grad=held.requires_grad) if isinstance(held, nn.Parameter) else found


def _carrier(model: nn.Module) -> _Carrier | None:
    return vars(model).get("_ranp")


def _add(module: nn.Module, state_dict: Any, prefix: str, metadata: Any) -> None:
    plan = attached_plan(module)
    if plan is not None:
        state_dict[prefix + KEY] = torch.frombuffer(bytearray(plan.to_json().encode()), dtype=torch.uint8)


def follow(model: nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> bool:
    """Give a network the shape of the one that a state dict was made of; new parameters get no values yet.

    Args:
        model: A network given to `attach_plan`.
        state_dict: With a plan in it, or without.
        prefix: Of the network's names in the state dict.

    Returns:
        Whether the shape has changed, so that an optimizer made before does not hold the parameters any more.

    Raises:
        PlanError: What is stored is no plan, or one for another network.
    """
    carrier, stored = _carrier(model), state_dict.get(prefix + KEY)
    if stored is None or carrier is None:
        return False
    plan = _plan_in(stored)
    if plan == carrier.plan:
        return False
    # From the full network: the present shape may be that of another plan.
    shrink_in_place(model, apply(carrier.full, plan), plan)
    return True


def _follow(module: nn.Module, state_dict: Any, prefix: str, *rest: Any) -> None:
    follow(module, state_dict, prefix)
    state_dict.pop(prefix + KEY, None)


def _plan_in(stored: Any) -> Plan:
    if not isinstance(stored, Tensor) or stored.dtype != torch.uint8 or stored.ndim != 1:
        raise PlanError(KEY, got=type(stored).__name__, expected="a plan as attach_plan writes it: bytes in a tensor")
    return Plan.from_json(stored.cpu().numpy().tobytes().decode("utf-8", errors="replace"))
