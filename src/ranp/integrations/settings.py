"""How nnU-Net's trainer prunes: options of `ranp.prune`, and environment variables that change them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ranp.budget import Budget
from ranp.costs import RESOURCES
from ranp.criteria import Importance
from ranp.errors import InputError, nearest
from ranp.surgery import Weights

PREFIX = "nnUNet_ranp_"


@dataclass(frozen=True)
class NnUNetPruning:
    """How nnU-Net's trainer prunes.

    Attributes:
        budget: What the pruned network may cost at the patch size of nnU-Net's plans.
        criterion: See `ranp.prune`, as for the attributes that are not listed here.
        batches: How many training batches to score with; in each process, if there are several.
    """

    budget: Budget = field(default_factory=lambda: Budget(macs=0.1))
    criterion: str = "ranp-f"
    importance: Importance = "parameter"
    batches: int = 20
    policy: str = "threshold"
    round_to: int | None = None
    min_width: int | None = None
    resource_weight: float | None = None
    seed: int = 0
    weights: Weights = "keep"

    def changed_by(self, environment: Mapping[str, str]) -> "NnUNetPruning":
        """Settings for a single run, from environment variables: `nnUNet_ranp_macs=0.05`, `nnUNet_ranp_round_to=8`.

        Limits are those of `Budget`, and those given replace the whole budget; the other names are the attributes'.

        Raises:
            RanpError: An unknown name, or a value that cannot be used.

        Example:
            >>> found = NnUNetPruning().changed_by({"nnUNet_ranp_params": "0.2", "nnUNet_ranp_batches": "4"})
            >>> str(found.budget), found.batches
            ('params=0.2', 4)
        """
        given = {name[len(PREFIX) :]: text for name, text in environment.items() if name.startswith(PREFIX)}
        values = {name: _value(name, text) for name, text in given.items()}
        limits = {name: values.pop(name) for name in _LIMITS if name in values}
        return replace(self, budget=Budget(**limits) if limits else self.budget, **values)


_LIMITS = [resource.limit for resource in RESOURCES]
_KINDS: dict[str, type] = {
    **dict.fromkeys((*_LIMITS, "criterion", "importance", "policy", "weights"), str),
    "resource_weight": float,
    **dict.fromkeys(("batches", "round_to", "min_width", "seed"), int),
}


def _value(name: str, text: str) -> Any:
    if name not in _KINDS:
        raise InputError(PREFIX + name, "is not a setting", hint=nearest(name, _KINDS))
    kind = _KINDS[name]
    try:
        value = kind(text)
    except ValueError as error:
        wanted = "an integer" if kind is int else "a number"
        raise InputError(PREFIX + name, f"must be {wanted}, not {text!r}") from error
    least = 0 if name == "seed" else 1
    if kind is int and value < least:
        raise InputError(PREFIX + name, f"must be at least {least}, not {text}")
    return value
