"""What the pruned network may cost."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ranp.arguments import describe
from ranp.costs import RESOURCES, Cost
from ranp.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """Limits that a plan must meet, all of them together.

    Attributes:
        macs: Fraction of the full model's multiply-adds to keep, in (0, 1].
        params: Fraction of its parameters to keep, in (0, 1].
        activations: Fraction of its activation bytes to keep, in (0, 1].
        sparsity: Fraction of its neurons (output channels of all layers) to remove, in [0, 1).
        custom: Fractions to keep of resources of your own, by the name of the `ranp.costs.Resource`; see
            `ranp.allocate`.

    Raises:
        BudgetError: No limit, or one that is not such a fraction.

    Example:
        >>> Budget(macs=0.05, params=0.1).limits(Cost(macs=1000, params=50, activation_bytes=8, neurons=9))
        {'macs': 50, 'params': 5}
        >>> print(Budget(macs=0.05, custom={"energy": 0.3}))
        macs=0.05, energy=0.3
    """

    macs: float | None = None
    params: float | None = None
    activations: float | None = None
    sparsity: float | None = None
    custom: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.custom, Mapping):
            raise BudgetError("Budget", "custom must be a mapping from names of resources to fractions to keep")
        object.__setattr__(self, "custom", dict(self.custom))
        if not list(self.given()) and not self.custom:
            raise BudgetError("Budget", "it has no limit", hint="give at least one, for example Budget(macs=0.05)")
        for name, value in self.given():
            _check_fraction(name, value, removes=name == "sparsity")
        for name, value in self.custom.items():
            if not isinstance(name, str) or not name or name in _NAMES:
                raise BudgetError("Budget", f"a custom limit cannot have the name {name!r}", hint="choose another name")
            _check_fraction(name, value, removes=False)

    def given(self) -> Iterator[tuple[str, float]]:
        """The limits on ranp's own resources that were set, by name; the others are in `custom`."""
        for name in (resource.limit for resource in RESOURCES):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def limits(self, full: Cost) -> dict[str, int]:
        """The limits on ranp's own resources as amounts, by field of `Cost`."""
        given = dict(self.given())
        most = {each.name: each.most(given[each.limit], each.of(full)) for each in RESOURCES if each.limit in given}
        # 10 * (1 - 0.9) is 0.9999999999999998: a limit must not be missed by a rounding error.
        return {name: math.floor(amount * (1 + 1e-12)) for name, amount in most.items()}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value:g}" for name, value in (*self.given(), *self.custom.items()))


_NAMES = {name for resource in RESOURCES for name in (resource.name, resource.limit)}


def _check_fraction(name: str, value: float, *, removes: bool) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (0 <= value < 1 if removes else 0 < value <= 1):
        expected = "a fraction to remove in [0, 1)" if removes else "a fraction to keep in (0, 1]"
        hint = f"for example {name}={0.8 if removes else 0.05}"
        raise BudgetError("Budget", got=f"{name}={describe(value)}", expected=expected, hint=hint)
