"""How results of layers reach other layers."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from ranp.graph import Node
from ranp.tracing._capture import Call


class NodeBuilder:
    """Builds the nodes of a graph from the operators of one forward pass.

    A layer makes a new node, and so does an operator on several activations; operators on one activation pass it on.
    Nodes of layers have the names of their weights. `is_weight` says whether a tensor depends on parameters and buffers
    only.
    """

    def __init__(self, is_weight: Callable[[Tensor], bool]) -> None:
        self._is_weight = is_weight
        self._nodes: list[Node] = []
        # By the id of a tensor; tensors that a forward creates have no node.
        self._node_of: dict[int, int] = {}
        self._constants: set[int] = set()

    def add(self, call: Call, weight: str | None) -> None:
        """Add an operator, and the name of its weight if it is a layer."""
        sources = self._sources(call.tensors)
        if not call.outputs:
            return
        if weight is not None:
            node = self._add("layer", weight, call.outputs, sources)
        elif len(sources) > 1:
            node = self._add("join", call.name.rstrip("_"), call.outputs, sources)
        elif sources:
            node = sources[0]
        else:
            self._constants.update(id(output) for output in call.outputs)
            return
        self._node_of.update((id(output), node) for output in call.outputs)

    def end(self, outputs: Sequence[Tensor]) -> list[Node]:
        """All nodes, once the pass is complete."""
        self._add("output", "", outputs, self._sources(outputs))
        return self._nodes

    def _sources(self, tensors: Sequence[Tensor]) -> list[int]:
        found: dict[int, None] = {}
        for tensor in tensors:
            if id(tensor) not in self._node_of and id(tensor) not in self._constants and not self._is_weight(tensor):
                self._node_of[id(tensor)] = self._add("input", "", [tensor], [])
            if id(tensor) in self._node_of:
                found[self._node_of[id(tensor)]] = None
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
