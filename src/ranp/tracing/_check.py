"""Comparing what a narrowed model does with what the labels predict."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ranp.errors import first_line
from ranp.graph import Ints
from ranp.module_utils import tensors_in
from ranp.tracing._build import Prediction
from ranp.tracing._records import Note
from ranp.tracing._running import Observer


class Check(Observer):
    """Compares what operators return with the predictions, and has them return those."""

    def __init__(self, predictions: Sequence[Prediction], sizes: Ints) -> None:
        super().__init__()
        self.predictions, self.sizes = predictions, sizes.tolist()
        self.failures: list[tuple[int, Prediction | None, Note]] = []
        self.position = 0
        self.comparable = True

    def fail(self, prediction: Prediction | None, reason: str) -> None:
        """Note that the operator at hand, or the forward before it, goes wrong."""
        operator = "forward" if prediction is None else prediction.operator
        self.failures.append((self.position, prediction, Note(self.path, operator, reason)))

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator; where it fails or returns something else, return what was predicted."""
        out = self._checked(func, args, kwargs)
        self.position += 1
        return out

    def _checked(self, func: Any, args: Any, kwargs: Any) -> Any:
        prediction = self._prediction(func)
        if prediction is None:
            return super().operate(func, args, kwargs)
        expected = prediction.at(self.sizes)
        try:
            out = super().operate(func, args, kwargs)
        except Exception as error:
            given = tensors_in((args, kwargs))
            if not given or not _returns_anew(func, len(expected)):
                raise
            self.fail(prediction, f"fails with fewer channels ({first_line(error)[:120]})")
            return _in_shape(func, given[0], expected)
        shapes = [tuple(tensor.shape) for tensor in tensors_in(out)]
        if shapes == expected:
            return out
        self.fail(prediction, f"returns {shapes} instead of {expected} with fewer channels")
        return _in_shape(func, tensors_in(out)[0], expected) if _returns_anew(func, len(expected)) else out

    def _prediction(self, func: Any) -> Prediction | None:
        """What this operator was predicted to return.

        There is nothing to compare any more where torch itself takes another path, which it may choose by size.
        """
        self.comparable = self.comparable and self.position < len(self.predictions)
        if self.comparable:
            self.comparable = self.predictions[self.position].operator == func.overloadpacket.__name__
        return self.predictions[self.position] if self.comparable else None


def _returns_anew(func: Any, count: int) -> bool:
    """Whether an operator returns that many tensors, one by one or as a list, and writes into none."""
    returns = func._schema.returns
    return not func._schema.is_mutable and (_is_list(func) or len(returns) == count)


def _is_list(func: Any) -> bool:
    returns = func._schema.returns
    return len(returns) == 1 and isinstance(returns[0].type, torch.ListType)


def _in_shape(func: Any, like: Tensor, shapes: Sequence[tuple[int, ...]]) -> Any:
    """What an operator returns, in other shapes."""
    made = [torch.empty(shape, dtype=like.dtype, device=like.device) for shape in shapes]
    return made if _is_list(func) else made[0] if len(made) == 1 else tuple(made)
