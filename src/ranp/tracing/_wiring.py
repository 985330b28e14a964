"""How results of layers reach other layers."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from ranp.graph import Node
from ranp.tracing._records import Call, LayerCall


class Wiring:
    """Follows activations through the operators of one forward pass.

    Operators on one activation pass it on; a layer makes a new one, and an operator on several brings them together.
    The nodes of layers bear the names of their weights.

    Args:
        is_weight: Tells parameters, buffers, and what is computed from these alone, from activations.
    """

    def __init__(self, is_weight: Callable[[Tensor], bool]) -> None:
        self._is_weight = is_weight
        self._nodes: list[Node] = []
        # By the id of a tensor; what a forward makes out of nothing has no maker.
        self._maker: dict[int, int] = {}
        self._constants: set[int] = set()

    def follow(self, call: Call, layers: Sequence[LayerCall]) -> None:
        """One operator, and the layer that it is, if any."""
        sources = self._sources(call.tensors)
        if not call.outputs:
            return
        if layers:
            maker = self._add("layer", layers[-1].weight, call.outputs, sources)
        elif len(sources) > 1:
            maker = self._add("join", call.name.rstrip("_"), call.outputs, sources)
        elif sources:
            maker = sources[0]
        else:
            self._constants.update(id(output) for output in call.outputs)
            return
        self._maker.update((id(output), maker) for output in call.outputs)

    def end(self, outputs: Sequence[Tensor]) -> list[Node]:
        """All nodes, once the model has returned."""
        self._add("output", "", outputs, self._sources(outputs))
        return self._nodes

    def _sources(self, tensors: Sequence[Tensor]) -> list[int]:
        found: dict[int, None] = {}
        for tensor in tensors:
            if id(tensor) not in self._maker and id(tensor) not in self._constants and not self._is_weight(tensor):
                self._maker[id(tensor)] = self._add("input", "", [tensor], [])
            if id(tensor) in self._maker:
                found[self._maker[id(tensor)]] = None
        return list(found)

    def _add(
        self,
        kind: Literal["input", "layer", "join", "output"],
        name: str,
        results: Sequence[Tensor],
        sources: Sequence[int],
    ) -> int:
        self._nodes.append(Node(kind, name, tuple(results[0].shape), tuple(sources)))
        return len(self._nodes) - 1
