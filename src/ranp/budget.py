"""What the pruned network may cost."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

from ranp.costs import Cost
from ranp.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """Limits that a plan must meet, all of them together.

    Attributes:
        macs: Fraction of the full model's multiply-adds to keep, in (0, 1].
        params: Fraction of its parameters to keep, in (0, 1].
        activations: Fraction of its activation bytes to keep, in (0, 1].
        sparsity: Fraction of its neurons (output channels of all layers) to remove, in [0, 1).
        custom: Fractions of other resources to keep, by the resource's name.

    Raises:
        BudgetError: No limit, or one that is not such a fraction.

    Example:
        >>> Budget(macs=0.05, params=0.1).limits(Cost(macs=1000, params=50, activation_bytes=8, neurons=9))
        {'macs': 50, 'params': 5}
    """

    macs: float | None = None
    params: float | None = None
    activations: float | None = None
    sparsity: float | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not list(self.given()) and not self.custom:
            raise BudgetError("Budget", got="no limit", expected="at least one", hint="for example Budget(macs=0.05)")
        for name, value in (*self.given(), *self.custom.items()):
            self._check(name, value)

    def given(self) -> Iterator[tuple[str, float]]:
        """The limits that were set, by name."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and entry.name != "custom":
                yield entry.name, value

    def limits(self, full: Cost) -> dict[str, int]:
        """The limits as numbers, by attribute of `Cost`."""
        found = {}
        for name, value in self.given():
            if name == "sparsity":
                found["neurons"] = _floor(full.neurons * (1 - value))
            else:
                resource = "activation_bytes" if name == "activations" else name
                found[resource] = _floor(getattr(full, resource) * value)
        return found

    @staticmethod
    def _check(name: str, value: float) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        removes = name == "sparsity"
        if not number or not (0 <= value < 1 if removes else 0 < value <= 1):
            raise BudgetError(
                "Budget",
                got=f"{name}={value!r}",
                expected="a fraction to remove in [0, 1)" if removes else "a fraction to keep in (0, 1]",
                hint=f"for example {name}={0.8 if removes else 0.05}",
            )


def _floor(value: float) -> int:
    # 10 * (1 - 0.9) is 0.9999999999999998: a limit is not to be missed for a rounding error.
    return math.floor(value * (1 + 1e-12))
