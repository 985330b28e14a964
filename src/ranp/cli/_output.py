"""Where the commands' output goes: results to stdout, all else to stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

VERSION = 1
"""Of the shape of all JSON that commands print; a field may be added to it, but none changed or removed."""

Tell = Callable[[str, int, int], None]


def print_json(command: str, figures: Mapping[str, Any], *, version: int = VERSION) -> None:
    """Print the figures of a command as one JSON object, which says first what it is."""
    kind = {"format": f"ranp-{command}", "version": version}
    print(json.dumps(kind | dict(figures) | kind, indent=1, allow_nan=False))


def stdout() -> Console:
    """Stdout for tables; where it is no terminal, without colours and wide enough for them to stay whole."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 1000)
    return console


@contextmanager
def working(*, bars: bool = True) -> Iterator[Tell]:
    """While a command works: whatever anyone prints goes to stderr, as do progress bars, one for each kind of work.

    Args:
        bars: Whether to show any; none are shown where stderr is no terminal.

    Yields:
        What is told of progress: what is being done, how much of it is done, and how much there is.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    shown = bars and console.is_terminal
    with redirect_stdout(sys.stderr), Bars(*columns, console=console, transient=True, disable=not shown) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], completed=done, total=total or None)

        yield tell
