"""Comparing two runs of a model operator by operator: is a run at other widths the same computation?

Shapes alone do not show that. A forward may slice off the first four channels of however many there are, use a number
that it computed from their count, take another branch, or combine other tensors of the same shape.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ranp.module_utils import tensors_in
from ranp.tracing._capture import Call

# Operators that torch adds or leaves out depending on the layout of a tensor, and that pass it on.
_PASSING_ON = {"detach", "clone", "alias", "contiguous"}
# Names of the same operator, which torch chooses between depending on the layout of a tensor.
_ALIASES = {"_unsafe_view": "view", "_reshape_alias": "view"}
# Operators to which a forward gives sizes, which are compared by the shapes of what they return.
_NAMES = (
    "view reshape expand repeat slice split split_with_sizes unsafe_split unsafe_split_with_sizes as_strided "
    "zeros ones empty full rand randn randint normal "
    "new_zeros new_ones new_empty new_full empty_strided new_empty_strided"
)
SIZED = frozenset(_NAMES.split())
# Those and operators to which torch gives sizes.
_SIZED = SIZED | {"convolution", "native_group_norm", "native_layer_norm", "_fused_rms_norm"}


class Signature(NamedTuple):
    """What an operator has to have in common with the operator of another run.

    Attributes:
        operator: Its name.
        path: Module in whose forward it ran.
        sources: Its tensors, numbered by first occurrence in the run.
        constants: Its other arguments, except for sizes.
    """

    operator: str
    path: str
    sources: list[int]
    constants: list[Any]


class SignatureLog:
    """Describes the operators of one run, one after the other."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._following = count()
        self._held: list[Any] = []  # ids identify tensors only as long as these are alive

    def signature(self, func: Any, path: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Signature | None:
        """Describe an operator before it runs; None where it passes its first argument on."""
        name = func.overloadpacket.__name__
        if name in _PASSING_ON:
            return None
        sources: list[int] = []
        for value in (*args, kwargs) if kwargs else args:
            if isinstance(value, Tensor):  # Nearly all are, or hold none; this runs for every operator of a trial.
                sources.append(self._number(value))
            elif isinstance(value, (list, tuple, dict)):
                sources += map(self._number, tensors_in(value))
        return Signature(_ALIASES.get(name, name), path, sources, _constants(func, args, kwargs))

    def returned(self, func: Any, signature: Signature | None, args: Sequence[Any], outputs: Iterable[Tensor]) -> None:
        """Number what the operator returned; a tensor that it gave another shape in place counts as another one."""
        for output in outputs:
            if torch.Tag.inplace_view in func.tags or id(output) not in self._numbers:
                self._held.append(output)
                self._numbers[id(output)] = next(self._following) if signature else self._number(args[0])

    def _number(self, tensor: Tensor) -> int:
        if id(tensor) not in self._numbers:
            self._held.append(tensor)
            self._numbers[id(tensor)] = next(self._following)
        return self._numbers[id(tensor)]


def signatures_of(calls: Iterable[Call]) -> list[Signature | None]:
    """The signatures of the operators of a recorded run."""
    log, found = SignatureLog(), []
    for call in calls:
        signature = log.signature(call.function, call.path, call.args, call.kwargs)
        log.returned(call.function, signature, call.args, call.outputs)
        found.append(signature)
    return found


def _constants(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Arguments that are neither tensors, sizes nor opaque. A number may stand in place of a tensor."""
    positions, names = _compared(func)
    given = [args[place] for place in positions if place < len(args)]
    if kwargs:
        given += [kwargs[name] for name in names if name in kwargs]
    return [value for value in given if not isinstance(value, (Tensor, torch.ScriptObject))]


@cache
def _compared(func: Any) -> tuple[list[int], list[str]]:
    """Positions and names of the arguments that may be constants."""
    name = func.overloadpacket.__name__.removesuffix("_")
    sized = func.namespace != "aten" or _ALIASES.get(name, name) in _SIZED
    positions, names = [], []
    for place, argument in enumerate(func._schema.arguments):
        kind = str(argument.real_type)
        if not (kind.startswith("List") and "Tensor" in kind) and not (sized and "int" in kind):
            positions.append(place)
            names.append(argument.name)
    return positions, names
