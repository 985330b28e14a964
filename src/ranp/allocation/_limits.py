"""The limits of a budget on one network."""

from collections.abc import Sequence
from dataclasses import dataclass

from ranp.budget import Budget
from ranp.costs import RESOURCES, Resource
from ranp.errors import BudgetError, nearest
from ranp.graph import ChannelGraph, Ints


@dataclass(frozen=True)
class Limit:
    """The most that a plan may use of one resource.

    Attributes:
        resource: The resource.
        limit: As the budget gives it: a fraction, or an amount with a unit.
        graph: The network.
        full: What the full network uses.
    """

    resource: Resource
    limit: float | str
    graph: ChannelGraph
    full: float

    @property
    def most(self) -> float:
        """The largest amount."""
        # 10 * (1 - 0.9) is 0.9999999999999998: a limit must not be missed by a rounding error.
        return self.resource.most(self.limit, self.full) * (1 + 1e-12)

    def cost(self, widths: Ints) -> float:
        """What the network uses at these widths."""
        return float(self.resource.cost(self.graph, widths) or 0.0)

    def permits(self, widths: Ints) -> bool:
        """Whether the network meets the limit at these widths."""
        return self.cost(widths) <= self.most

    def loosened(self, widths: Ints) -> str:
        """The limit that these widths just meet, as text."""
        removes = self.resource.removes
        bound = self.resource.in_unit_of(self.cost(widths), self.limit, self.full, up=True)
        return f"{self.resource.limit} {'<=' if removes else '>='} {bound}"


def limits_of(graph: ChannelGraph, budget: Budget, resources: Sequence[Resource] = ()) -> list[Limit]:
    """The limits of a budget; `resources` are those that its custom limits may refer to.

    Raises:
        BudgetError: It limits a resource that is not known, or one whose cost is not known for this network.
    """
    known = {resource.limit: resource for resource in (*RESOURCES, *resources)}
    limits = []
    for name, limit in (*budget.given(), *budget.custom.items()):
        if name not in known:
            hint = f"pass it in resources=; {nearest(name, known)}"
            raise BudgetError("budget", f"it limits {name!r}, which is not a known resource", hint=hint)
        full = known[name].cost(graph, graph.widths)
        if full is None:
            raise BudgetError("budget", f"it limits {name}, which is not known here", hint=known[name].remedy)
        limits.append(Limit(known[name], limit, graph, full))
    return limits


def require_feasible(limits: Sequence[Limit], narrowest: Ints) -> None:
    """Refuse a budget that even the narrowest network exceeds.

    Raises:
        BudgetError: The message names the feasible minimum.
    """
    if all(limit.permits(narrowest) for limit in limits):
        return
    got = ", ".join(f"{limit.resource.limit}={limit.limit}" for limit in limits)
    feasible = ", ".join(limit.loosened(narrowest) for limit in limits)
    expected, hint = f"a feasible budget: {feasible}", "raise the budget, or lower min_width and round_to"
    raise BudgetError("allocate", got=got, expected=expected, hint=hint)
