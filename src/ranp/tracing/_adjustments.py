"""What trials at other widths show about a forward, beyond what labels say.

Operators are referred to by their place in the captured passes, which is the same each time labels are propagated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

# An operator: the number of the pass, and its own in that pass.
Place: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Size:
    """One dimension of an operator's output."""

    place: Place
    output: int
    dim: int


@dataclass(frozen=True)
class Factor:
    """A number in a product that depends on a width: it is multiplied by (size / full size) ** exponent."""

    size: Size
    exponent: float


@dataclass
class Adjustments:
    """What labels have to be adjusted by.

    Attributes:
        chosen: For views that split channels, the dimension whose size follows them.
        equal: Sizes of views that the forward computes from another size, either the same or a multiple.
        factors: Numbers in products that depend on widths.
        stale: Whether labels have to be propagated again.
    """

    chosen: dict[Place, int] = field(default_factory=dict)
    equal: dict[Size, Size] = field(default_factory=dict)
    factors: dict[Place, Factor] = field(default_factory=dict)
    stale: bool = True

    def undo(self, size: Size) -> bool:
        """Forget what was noted about a size; False if there is nothing."""
        found = self.equal.pop(size, None) is not None
        self.stale |= found
        return found

    def turn(self, place: Place, dims: Sequence[int], to: int | None = None) -> bool:
        """Choose another dimension for a view that splits channels, a later one of `dims`; False if none is left."""
        later = dims[dims.index(self.chosen.get(place, dims[0])) + 1 :]
        if not later or to not in (None, *later):
            return False
        self.chosen[place] = later[0] if to is None else to
        self.stale = True
        return True
