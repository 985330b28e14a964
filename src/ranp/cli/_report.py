"""`ranp report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a pruned network, or of a run (which may be half done).")],
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="report.html in the folder")] = None,
    beside: Annotated[
        list[Path] | None, typer.Option(help="Folder of a run to compare with, the full network's say; repeatable.")
    ] = None,
) -> None:
    """Write one HTML file about a pruned network: what came out, plans for other budgets, pictures, training.

    It works without a network, in a mail attachment, on a phone.
    """
    from ranp.explorer._write import write_page

    print(write_page(folder, out, beside=beside or ()))
