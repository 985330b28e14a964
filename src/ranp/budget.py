"""What the pruned network may cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ranp.arguments import describe
from ranp.costs import RESOURCES, Cost, Resource
from ranp.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """Limits that a plan must meet, all of them together.

    Each limit is a fraction of what the full network needs, as a number (`0.25`) or in percent (`"25%"`), or an amount
    with a unit (`"80 ms"`, `"8 GiB"`, `"10G"`).

    Attributes:
        macs: Multiply-adds to keep; units k, M, G, T.
        params: Parameters to keep; units k, M, G, T.
        activations: Activation memory of a forward pass to keep; units B to TiB (powers of 1024), kB to TB (of 1000).
        sparsity: Fraction of the neurons (output channels of all layers) to remove, in [0, 1).
        step_time: Duration of a training step; units us, ms, s, min. It is measured.
        train_memory: Peak memory of a training step; units as for `activations`.
        custom: Fractions to keep of resources of your own, by the name of the `ranp.costs.Resource`; see
            `ranp.allocate`.

    Raises:
        BudgetError: No limit, or one that is neither a fraction nor an amount.

    Example:
        >>> Budget(macs=0.05, params="8").limits(Cost(macs=1000, params=50, activation_bytes=8, neurons=9))
        Traceback (most recent call last):
        ranp.errors.BudgetError: Budget: got params='8'; expected a fraction to keep in (0, 1], ...
        >>> Budget(macs=0.05, params="10%").limits(Cost(macs=1000, params=50, activation_bytes=8, neurons=9))
        {'macs': 50.0, 'params': 5.0}
        >>> print(Budget(macs="2.5G", custom={"energy": 0.3}))
        macs=2.5 G, energy=0.3
    """

    macs: float | str | None = None
    params: float | str | None = None
    activations: float | str | None = None
    sparsity: float | str | None = None
    step_time: float | str | None = None
    train_memory: float | str | None = None
    custom: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.custom, Mapping):
            raise BudgetError("Budget", "custom must be a mapping from names of resources to fractions to keep")
        given = {each.limit: getattr(self, each.limit) for each in RESOURCES}
        for each in RESOURCES:
            if given[each.limit] is not None:
                object.__setattr__(self, each.limit, _parsed(each, given[each.limit]))
        for name in self.custom:
            if not isinstance(name, str) or not name or name in _NAMES:
                raise BudgetError("Budget", f"a custom limit cannot have the name {name!r}", hint="choose another name")
        custom = {name: _parsed(Resource(name, lambda *_: 0.0), value) for name, value in self.custom.items()}
        object.__setattr__(self, "custom", custom)
        if not list(self.given()) and not self.custom:
            raise BudgetError("Budget", "it has no limit", hint="give at least one, for example Budget(macs=0.05)")

    def given(self) -> Iterator[tuple[str, float | str]]:
        """The limits on ranp's own resources that were set, by name; the others are in `custom`."""
        for name in (resource.limit for resource in RESOURCES):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def limits(self, full: Cost) -> dict[str, float]:
        """The limits on ranp's own resources as amounts, by field of `Cost`."""
        given = dict(self.given())
        return {
            each.name: each.most(given[each.limit], each.of(full) or 0) for each in RESOURCES if each.limit in given
        }

    def __str__(self) -> str:
        limits = (*self.given(), *self.custom.items())
        return ", ".join(f"{name}={value if isinstance(value, str) else f'{value:g}'}" for name, value in limits)


_NAMES = {name for resource in RESOURCES for name in (resource.name, resource.limit)}


def _parsed(resource: Resource, value: object) -> float | str:
    try:
        return resource.parse(value)
    except ValueError as error:
        raise BudgetError("Budget", got=f"{resource.limit}={describe(value)}", expected=str(error)) from error
