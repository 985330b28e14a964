"""Names and arguments that changed: they keep working for one release, with a warning."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function accept keyword arguments by their old names.

    Args:
        renamed: The new name of every old one.

    Raises:
        TypeError: An argument is given by both of its names.

    Example:
        >>> @renamed_arguments(times="count")
        ... def repeat(text, count=2):
        ...     return text * count
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     repeat("a", times=3)
        'aaa'
        >>> print(caught[0].message)
        repeat(times=...) is deprecated; use count=
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def accept_old_names(*args: P.args, **kwargs: P.kwargs) -> T:
            for old in renamed.keys() & kwargs.keys():
                call, new = f"{function.__name__}({old}=...)", renamed[old]
                if new in kwargs:
                    raise TypeError(f"{call}: {old} is the old name of {new}; give only {new}")
                message = f"{call} is deprecated; use {new}="
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accept_old_names

    return decorate
