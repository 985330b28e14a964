"""Tensors that a forward makes: constants, random numbers and repetitions.

Along some of their dimensions all entries are alike, so they may shrink there. Whether such a dimension counts channels
is known only when channels are written into the tensor, or meet it in another operator. Then it is labelled from the
start the next time.
"""

from collections.abc import Iterable

from torch import Tensor


class Made:
    """The tensors that were made, and what was computed from them and carries no channels.

    `labelled` holds the ids of those that carry labels this time, and `needed` of those that need to.
    """

    def __init__(self, labelled: frozenset[int]) -> None:
        self.labelled, self.needed = labelled, set[int]()
        self._sizes: dict[int, set[int]] = {}
        self._origins: dict[int, frozenset[int]] = {}

    def add(self, tensor: Tensor, dims: Iterable[int]) -> None:
        """Note a tensor, all of whose entries are alike along some dimensions."""
        key = id(tensor)
        self._sizes[key] = {tensor.shape[dim] for dim in dims}
        self._origins[key] = self._origins.get(key, frozenset()) | {key}

    def reaches(self, tensors: Iterable[Tensor]) -> bool:
        """Whether one of some tensors was made or computed from one that was."""
        return bool(self._origins) and any(id(tensor) in self._origins for tensor in tensors)

    def pass_on(self, sources: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
        """Note that tensors were computed from others."""
        if found := frozenset[int]().union(*(self._origins.get(id(source), ()) for source in sources)):
            for output in outputs:
                self._origins[id(output)] = self._origins.get(id(output), frozenset()) | found

    def need(self, key: int, size: int | None = None) -> None:
        """Note that a dimension of this size, or any, of the tensor with this id counts channels."""
        for origin in self._origins.get(key, ()):
            if size is None or size in self._sizes[origin]:
                self.needed.add(origin)
