"""From content to one HTML file."""

import base64
import gzip
import json
import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ranp._version import __version__
from ranp.errors import ArtifactError
from ranp.explorer._content import Content, Run, read_content
from ranp.explorer._glance import verdict
from ranp.explorer._sections import sections
from ranp.files import write_bytes
from ranp.optional import optional_import

# In this order: each uses what stands before it.
_SCRIPTS = ("plan.js", "words.js", "pictures.js", "network.js", "explorer.js", "training.js", "main.js")


def write_page(
    folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, beside: Sequence[Path] = ()
) -> Path:
    """Write the report on a pruned network or a run: one HTML file that needs no network.

    Args:
        folder: What `ranp.save` or `ranp train` wrote; a run may be half done.
        out: The file; `report.html` in the folder if not given. One that is there is replaced.
        beside: Folders of runs to compare with, such as that of the full network.

    Returns:
        The file.

    Raises:
        ArtifactError: The folder is neither, a file in it is damaged, or the page cannot be written.
        RanpError: A package is missing.
    """
    page = page_of(read_content(Path(folder), beside))
    path = Path(folder) / "report.html" if out is None else Path(out)
    try:
        write_bytes(path, page.encode())
    except OSError as error:
        raise ArtifactError(str(path), got=str(error), expected="a place that can be written") from error
    return path


def page_of(content: Content) -> str:
    """The whole page."""
    shown = sections(content)
    return Template(_asset("page.html")).substitute(
        title=escape(content.name),
        verdict=verdict(content),
        style=_asset("style.css"),
        links="\n".join(f'<li><a href="#{section.id}">{escape(section.title)}</a></li>' for section in shown),
        sections="\n".join(section.html() for section in shown),
        version=escape(__version__),
        data=in_script({"survey": content.survey, "runs": [_series(run) for run in content.runs]}),
        plotly=_plotly(),
        script="\n".join(_asset(name) for name in _SCRIPTS),
    )


def _series(run: Run) -> dict[str, Any]:
    return {"name": run.name, "curve": list(run.curve)}


def in_script(value: Any) -> str:
    r"""JSON that can stand within a script element, whatever its strings hold.

    Example:
        >>> print(in_script("</script>"))
        "\u003c/script\u003e"
    """
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _plotly() -> str:
    """The plotting library, compressed: a page of two megabytes instead of five."""
    script: str = optional_import("plotly.offline", "report", extra="report").get_plotlyjs()
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def _asset(name: str) -> str:
    return files("ranp.explorer").joinpath("assets", name).read_text(encoding="utf-8")
