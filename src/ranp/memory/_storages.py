"""Recording when the storages of a training step are allocated and freed."""

import weakref
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ranp.costs.memory import Block, Kind, MemoryPrediction, Moment, Phase
from ranp.memory._workspace import workspace_bytes
from ranp.module_utils import tensors_in
from ranp.tracing import Observer

_ATEN = torch.ops.aten


@dataclass(eq=False)
class _Storage:
    """A storage of tensors: allocated by the moment `start`, freed before the moment `end` or never."""

    path: str
    bytes: int
    start: int
    end: int | None = None
    kind: Kind | None = None


class StorageLog(Observer):
    """Records every operator of a training step without values, and the lifetime of every storage.

    Args:
        block: Sizes are rounded up to multiples of this many bytes.
        workspace: Whether to estimate what convolutions allocate on the CPU while they run.
    """

    def __init__(self, *, block: int = 1, workspace: bool = False) -> None:
        super().__init__()
        self.block, self.workspace = block, workspace
        self.moments: list[Moment] = []
        self.storages: list[_Storage] = []
        self.reads_values: dict[str, None] = {}  # paths of modules whose forward does
        self._known: dict[int, tuple[_Storage, Any]] = {}
        self._flags: set[int] = set()
        # Paths of the operators outside of the backward pass, and how many autograd nodes there were after each.
        self._paths: list[str] = []
        self._nodes: list[int] = []

    def hold(self, kind: Kind, tensors: Mapping[str, Tensor]) -> None:
        """Note the kind of some storages and the names of their tensors; those not known exist before the step."""
        for name, tensor in tensors.items():
            storage = self._note(tensor, name)
            storage.kind, storage.path = kind, name

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator and note the storages of its outputs."""
        if func is _ATEN._local_scalar_dense.default:
            return self._value(args[0])
        if func is _ATEN._amp_foreach_non_finite_check_and_unscale_.default:
            self._flags.add(id(args[1].untyped_storage()))
        node = torch._C._current_autograd_node()
        path = self._path_of(node)
        phase: Phase = "forward" if node is None else "backward"
        out = super().operate(func, args, kwargs)
        workspace = workspace_bytes(func, args, out) if self.workspace else 0
        self.moments.append(Moment(phase, path, func.overloadpacket.__name__, workspace))
        for tensor in tensors_in(out):
            self._note(tensor, path)
        return out

    def _path_of(self, node: Any) -> str:
        """Path of the module that runs or, in the backward pass, of the one whose forward made the autograd node."""
        if node is None or self.running:
            self._nodes.append(torch._C._autograd._get_sequence_nr())  # type: ignore[attr-defined]
            self._paths.append(self.path)
            return self.path
        # An operator makes its node before it runs.
        place = bisect_right(self._nodes, node._sequence_nr())
        return self._paths[place] if place < len(self._paths) else ""

    def _note(self, tensor: Tensor, path: str) -> _Storage:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._known:
            size = -(-storage.nbytes() // self.block) * self.block
            found = _Storage(path, size, max(len(self.moments) - 1, 0))

            def free(_: Any) -> None:
                found.end = len(self.moments)
                del self._known[key]

            self._known[key] = found, weakref.ref(storage, free)
            self.storages.append(found)
        return self._known[key][0]

    def _value(self, tensor: Tensor) -> Any:
        """A value that the step asks for: as it is where it is known, otherwise one."""
        known = getattr(tensor, "constant", None) if isinstance(tensor, FakeTensor) else tensor
        if known is not None:
            return known.item()
        if id(tensor.untyped_storage()) in self._flags:
            return 0.0  # No gradient is infinite: otherwise the step would be skipped.
        if not self._in_optimizer():
            self.reads_values[self.path] = None
        return True if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1

    def _in_optimizer(self) -> bool:
        return torch._C._current_autograd_node() is None and any(one.phase == "backward" for one in self.moments)

    def prediction(self) -> MemoryPrediction:
        """What was recorded, once the step is over and what it does not keep is freed."""
        backward = [number for number, moment in enumerate(self.moments) if moment.phase == "backward"]
        first, last = backward[0], backward[-1]
        moments = [
            Moment("optimizer", moment.path, moment.operator) if number > last else moment
            for number, moment in enumerate(self.moments)
        ]
        blocks = []
        for found in self.storages:
            kind, start = found.kind, found.start
            if kind is None and found.end is None:
                # What survives one step was there when the next one began.
                kind, start = "optimizer_state" if start > last else "buffers", 0
            elif kind is None:
                kind = "activations" if start < first < (found.end or 0) else "temporaries"
            end = len(moments) if found.end is None else found.end
            blocks.append(Block(kind, found.path, found.bytes, start, end))
        notes = tuple(
            f"the forward of {path or 'the model or the loss'} reads values of tensors, which were assumed to be one"
            for path in self.reads_values
        )
        return MemoryPrediction(tuple(moments), tuple(blocks), notes)
