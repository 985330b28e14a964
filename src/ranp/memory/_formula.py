"""From predictions at a few widths to a formula of the peak at any widths.

The blocks of a training step are the same at all widths, only their sizes differ. Tracing has found the linear forms of
widths that occur as sizes of dimensions, and the size of a block is a product of one or two of them: a few random
widths tell which.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranp.costs.memory import Block, MemoryFormula, MemoryPrediction
from ranp.costs.sizes import distinct_axes
from ranp.errors import InputError
from ranp.graph import ChannelGraph, Ints


def memory_formula(predict: Callable[[Ints], MemoryPrediction], graph: ChannelGraph) -> MemoryFormula:
    """The formula of a model's peak memory.

    Args:
        predict: The memory of a step at given widths, which may be larger than the full ones; it is called about three
            times.
        graph: The traced model.

    Raises:
        InputError: The steps at different widths do not correspond to each other.
    """
    design = _design(graph)
    found = [predict(widths) for widths in design.widths]
    lives = [[(block.kind, block.start, block.end) for block in prediction.blocks] for prediction in found]
    if any(other != lives[0] for other in lives):
        problem = "the training step runs other operators at other widths"
        raise InputError("memory formula", problem, hint="use predict_memory at each of the widths instead")
    moments = np.zeros((len(found[0].moments) + 1, len(design.products)), dtype=np.int64)
    for blocks in zip(*(prediction.blocks for prediction in found), strict=True):
        term, factor = design.term(blocks)
        moments[blocks[0].start, term] += factor
        moments[blocks[0].end, term] -= factor
    used = moments.any(axis=0)
    return MemoryFormula(design.axes, design.products[used], _maximal(moments[:, used].cumsum(axis=0)[:-1]))


@dataclass(frozen=True, eq=False)
class _Design:
    """At which widths to predict.

    Attributes:
        axes: See `MemoryFormula`.
        products: All pairs of axes, of shape (products, 2); the first is constant.
        widths: Of shape (samples, groups); the first are the full ones.
    """

    axes: Ints
    products: Ints
    widths: Ints

    @cached_property
    def sizes(self) -> Ints:
        """Sizes of the products, of shape (samples, products)."""
        ones = np.ones((len(self.widths), 1), dtype=np.int64)
        sizes: Ints = (np.hstack([self.widths, ones]) @ self.axes.T)[:, self.products].prod(axis=2)
        return sizes

    @cached_property
    def terms(self) -> dict[bytes, int]:
        """Number of each product by how it grows. Quotients of the same ratio are the same floating-point number."""
        return {ratios.tobytes(): term for term, ratios in enumerate((self.sizes[1:] / self.sizes[0]).T.copy())}

    def term(self, blocks: Sequence[Block]) -> tuple[int, int]:
        """The product that the sizes of a block in all samples are multiples of, and the factor.

        A block that is no such multiple counts with its largest size: the peak is not underestimated then.
        """
        amounts = np.array([block.bytes for block in blocks], dtype=np.int64)
        if not amounts.all():
            return 0, int(amounts.max())
        term = self.terms.get((amounts[1:] / amounts[0]).tobytes(), 0)
        return term, int(np.max(-(-amounts // self.sizes[:, term])))


def _design(graph: ChannelGraph) -> _Design:
    """Random widths at which no two products of axes grow alike."""
    # Groups of one channel always have that one.
    axes, alone = graph.costs.axes.copy(), np.flatnonzero(graph.widths == 1)
    axes[:, -1] += axes[:, alone].sum(axis=1)
    axes[:, alone] = 0
    axes = distinct_axes(axes)
    products = np.stack(np.triu_indices(len(axes)), axis=1)
    random, widths = np.random.default_rng(0), graph.widths[None]
    while True:
        # Wider, so that no dimension has the size 1, which has no layout and which some operators treat specially.
        drawn = random.integers(graph.widths + 1, 2 * graph.widths + 16)
        widths = np.vstack([widths, np.where(graph.widths == 1, 1, drawn)])
        design = _Design(axes, products, widths)
        if len(design.terms) == len(products):
            return design


def _maximal(moments: Ints) -> Ints:
    """The moments that no other exceeds in every term: the peak is at one of them whatever the sizes are."""
    rows = np.unique(moments, axis=0)
    kept = np.zeros((0, rows.shape[1]), dtype=np.int64)
    for row in rows[np.argsort(-rows.astype(np.float64).sum(axis=1))]:
        if not (kept >= row).all(axis=1).any():
            kept = np.vstack([kept, row])
    return kept
