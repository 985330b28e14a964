"""One threshold over the scores of all channels, as low as the budget permits."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from ranp.allocation._grid import WidthGrid
from ranp.allocation._limits import Limit, require_feasible
from ranp.graph import ChannelGraph, Ints
from ranp.scores import Scores, rank_within_groups


def threshold(graph: ChannelGraph, scores: Scores, grid: WidthGrid, limits: Sequence[Limit]) -> Ints:
    """The widths at the lowest threshold that meets every limit, of shape (groups,).

    Channels are ranked by score over all groups (Xu et al., RANP, 3DV 2020: global top-k), each group's best
    `min_width` first. A prefix of that ranking gives every group a width, which the grid guards and rounds. The longest
    prefix that meets every limit is taken; since prefixes are nested, a tighter budget never costs more.

    Raises:
        BudgetError: Even the narrowest network exceeds a limit.
    """
    ranking, kept_first = rank(graph, scores, grid.min_width or 1)

    def widths_of(count: int) -> Ints:
        wanted = np.bincount(graph.group_of[ranking[:count]], minlength=len(graph.groups))
        return grid.nearest(grid.guarded(wanted))

    def exceeds(count: int) -> bool:
        widths = widths_of(count)
        return not all(limit.permits(widths) for limit in limits)

    counts = range(kept_first, len(ranking) + 1)
    found = bisect_left(counts, True, key=exceeds)
    if found:
        return widths_of(counts[found - 1])
    require_feasible(limits, grid.narrowest)
    return grid.narrowest


def rank(graph: ChannelGraph, scores: Scores, min_width: int) -> tuple[Ints, int]:
    """Channels in the order in which they are kept, and how many of them `min_width` keeps in any case.

    Ties go to the channel with the lower number.
    """
    best_first = np.argsort(-scores.channels, kind="stable")
    kept_first = rank_within_groups(graph, scores.channels)[best_first] < min_width
    return np.concatenate([best_first[kept_first], best_first[~kept_first]]), int(kept_first.sum())
