"""Whether more batches would still change which channels rank above which."""

from collections.abc import Callable, Mapping

import numpy as np

from ranp.graph import Floats


class Ranking:
    """Compares the scores of n batches with those of the first half of them, for n = 2, 4, 8, ...

    In several processes n counts the batches of all: of two that see as many each, n = 4, 8, 16, ...

    Averages over n and n + 1 batches are alike whatever the data, once n is large; those over n and n / 2 are not.

    Args:
        score: Scores of channels, of the layers' importance.
        stop_at_correlation: Rank correlation from which on more batches are not needed; None if all are wanted.

    Attributes:
        seen: For every comparison the number of batches and the rank correlation.

    Example:
        >>> ranking = Ranking(lambda layers: layers["a"], stop_at_correlation=0.9)
        >>> [ranking.enough(n, {"a": np.array(scores)}) for n, scores in ((1, [1, 2, 3]), (2, [1.5, 2, 9]))]
        [False, True]
        >>> ranking.seen
        [(2, 1.0)]
    """

    def __init__(self, score: Callable[[Mapping[str, Floats]], Floats], stop_at_correlation: float | None) -> None:
        self.score, self.stop_at_correlation = score, stop_at_correlation
        self.seen: list[tuple[int, float]] = []
        self._before: Floats | None = None

    @staticmethod
    def due(batches: int) -> bool:
        """Whether it is time to compare, after so many batches in each process."""
        return not batches & (batches - 1)

    def enough(self, batches: int, importance: Mapping[str, Floats]) -> bool:
        """Compare with the time before; tell whether the ranking is stable.

        Args:
            batches: Seen so far, in all processes.
            importance: The layers' importance over these batches.
        """
        scores, before = self.score(importance), self._before
        self._before = scores
        if before is None:
            return False
        self.seen.append((batches, rank_correlation(before, scores)))
        return self.stop_at_correlation is not None and self.seen[-1][1] >= self.stop_at_correlation


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation; equal values share their mean rank, and 1 where nothing can be ranked.

    Example:
        >>> rank_correlation(np.array([1.0, 2, 3]), np.array([5.0, 7, 100]))
        1.0
    """
    ranks = [_ranks(values) for values in (first, second)]
    centred = [rank - rank.mean() for rank in ranks]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return round(float((centred[0] * centred[1]).sum()) / scale, 12) if scale else 1.0


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks
