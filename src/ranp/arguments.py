"""Checking the arguments of public functions: against their annotations, before anything else happens."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from ranp.errors import InputError, nearest

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Must:
    """What must hold for an argument besides its type, as a part of its annotation.

    Args:
        hold: Whether it holds for a value of the type.
        expected: What to give instead, including the type.
        hint: What to do about it.

    Example:
        >>> even = Annotated[int, Must(lambda value: value % 2 == 0, "an even number")]
        >>> require("size", 3, even)
        Traceback (most recent call last):
        ranp.errors.InputError: size: got 3; expected an even number
    """

    hold: Callable[[Any], bool]
    expected: str
    hint: str = ""


Count: TypeAlias = Annotated[int, Must(lambda value: 1 <= value < 2**31, "an integer of at least 1, below 2**31")]
"""A number of things, one at least."""

Amount: TypeAlias = Annotated[int, Must(lambda value: 0 <= value < 2**63, "an integer from 0 to 2**63 - 1")]
"""A number of things or bytes, or a position."""

NonNegative: TypeAlias = Annotated[float, Must(lambda value: value >= 0, "a finite number of at least 0")]

Seed: TypeAlias = Annotated[int, Must(lambda value: 0 <= value < 2**64, "an integer from 0 to 2**64 - 1")]
"""A seed of torch's and numpy's random numbers."""

_NAMES = {
    int: "an integer",
    float: "a finite number",
    bool: "True or False",
    str: "a string",
    NoneType: "None",
    os.PathLike: "a path",
    Callable: "a function",
    Iterable: "an iterable",
    Mapping: "a dict",
    Sequence: "a list or tuple",
}
# By the names of classes, which are not imported here.
_HINTS = {
    "Budget": "for example ranp.Budget(macs=0.25)",
    "ChannelGraph": "use what ranp.trace returned",
    "Criterion": "for example 'ranp-f'",
    "Module": "give the network itself, before scripting or exporting it",
    "Plan": "use the plan that ranp.prune or ranp.allocate returned",
    "Scores": "use what ranp.score returned",
}


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Have the arguments of a function checked against its annotations whenever it is called.

    An `InputError` names the first argument that does not fit. The items of lists, tuples and dicts are checked too,
    those of other iterables are not.

    Example:
        >>> @checked
        ... def repeat(text: str, times: Count = 2) -> str:
        ...     return text * times
        >>> repeat("ab")
        'abab'
        >>> repeat("ab", times=0)
        Traceback (most recent call last):
        ranp.errors.InputError: times: got 0; expected an integer of at least 1, below 2**31
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # An argument is missing or unknown; Python's own message is clear.
            return function(*args, **kwargs)
        for name, value in given.items():
            require(name, value, _hints(function).get(name, Any))
        return function(*args, **kwargs)

    return call


@cache
def _hints(described: Any) -> dict[str, Any]:
    return get_type_hints(described, include_extras=True)


def require(place: str, value: Any, kind: Any) -> None:
    """Refuse a value that is not of an annotated type.

    Raises:
        InputError: It names the place, the value, what was expected and an example.
    """
    if fits(value, kind):
        return
    choices = [choice for part in _parts(kind) if get_origin(part) is Literal for choice in get_args(part)]
    if choices and isinstance(value, str):
        raise InputError(place, f"{value!r:.60} is unknown", hint=nearest(value, choices))
    hints = (_hint(value, part) for part in _parts(kind))
    raise InputError(place, got=describe(value), expected=_expected(kind), hint=next(filter(None, hints), ""))


def require_fields(instance: Any) -> None:
    """Refuse an instance of a dataclass with a field that is not of its annotated type, as `require` does."""
    for name, kind in get_type_hints(type(instance), include_extras=True).items():
        require(f"{type(instance).__name__}: {name}", getattr(instance, name), kind)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type.

    Example:
        >>> fits(1, float), fits(True, int), fits(None, int | None), fits([1, "a"], Sequence[int])
        (True, False, True, False)
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(value, arguments[0]) and all(must.hold(value) for must in arguments[1:])
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e308 <= value <= 1e308
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, TypeVar):
        return kind.__bound__ is None or fits(value, kind.__bound__)
    held: Any = origin or kind
    if held is Any or not isinstance(held, type):
        return True
    is_held, is_text = isinstance(value, held), isinstance(value, (str, bytes))
    if not is_held or (is_text and held in (Iterable, Sequence)):
        return False
    if held is Sequence:
        return all(fits(item, arguments[0]) for item in value)
    return held is not Mapping or all(fits(key, arguments[0]) and fits(value[key], arguments[1]) for key in value)


def _parts(kind: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    if isinstance(kind, TypeVar) and kind.__bound__ is not None:
        return [kind.__bound__]
    return list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]


def _expected(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is Annotated:
        return str(get_args(kind)[1].expected)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if len(parts := _parts(kind)) > 1:
        return " or ".join(map(_expected, parts))
    held = get_origin(kind) or kind
    return _NAMES.get(held) or f"a {held.__name__}"


def _hint(value: Any, kind: Any) -> str:
    if get_origin(kind) is Annotated:
        base, *musts = get_args(kind)
        return musts[0].hint if fits(value, base) else _hint(value, base)
    return _HINTS.get(getattr(kind, "__name__", ""), "")


def describe(value: Any) -> str:
    """A value in a few words, for errors.

    Example:
        >>> describe("ab"), describe(2**70), describe(int), describe([1, None])
        ("'ab'", 'an integer of 71 bits', 'the class int', 'list of [1, None]')
    """
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, (int, float, complex, str)):
        return f"{value!r:.60}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(shape := getattr(value, "shape", None), tuple):
        return f"a {type(value).__name__.lower()} of shape {tuple(shape)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of [{', '.join(map(describe, value[:4]))}]"
    if isinstance(value, Mapping):
        return f"dict of {{{', '.join(f'{key}: {describe(item)}' for key, item in list(value.items())[:4])}}}"
    return type(value).__name__
