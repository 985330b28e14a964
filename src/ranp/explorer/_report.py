"""Writing a report: one HTML file that contains its data, scripts and plotting library."""

import base64
import gzip
import json
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from ranp.arguments import checked
from ranp.costs import RESOURCES
from ranp.errors import ArtifactError
from ranp.explorer._content import Content, RunSummary, read_content
from ranp.explorer._html import asset, section
from ranp.explorer._sections import headline, sections
from ranp.files import FilePath, write_bytes
from ranp.optional import optional_import
from ranp.tables import Table

# In this order: each script uses the ones before it.
_SCRIPTS = ("plan.js", "format.js", "plots.js", "network.js", "explorer.js", "training.js", "main.js")


@checked
def write_report(
    folder: FilePath,
    out: FilePath | None = None,
    *,
    run: RunSummary | None = None,
    runs: Sequence[RunSummary] = (),
    comparison: Table | None = None,
) -> Path:
    """Write the report of a pruned network: one HTML file that works offline.

    Args:
        folder: The folder of a pruned network, as `ranp.save` writes it; or that of `run`, with the network in `plan/`.
        out: The file, which is replaced if it exists; `report.html` in the folder by default.
        run: The training run that the folder belongs to; it may be unfinished.
        runs: Other runs to compare with, such as that of the full network.
        comparison: A table that compares the finished runs.

    Returns:
        The file.

    Raises:
        ArtifactError: There is no pruned network, a file is damaged, or the report cannot be written.
        RanpError: plotly or jsonschema is not installed.
    """
    page = _render(read_content(Path(folder), run, runs, comparison))
    path = Path(folder) / "report.html" if out is None else Path(out)
    try:
        write_bytes(path, page.encode())
    except OSError as error:
        raise ArtifactError(str(path), f"cannot be written: {error}") from error
    return path


def _render(content: Content) -> str:
    shown = sections(content)
    plotly: str = optional_import("plotly.offline", "report", extra="report").get_plotlyjs()
    known = content.costs[1].known() if content.plan else {}
    labels = {resource.name: resource.label for resource in RESOURCES if resource.name in known}
    runs = [{"name": run.name, "curve": list(run.curve)} for run in content.runs]
    return Template(asset("page.html")).substitute(
        title=escape(content.name),
        headline=headline(content),
        style=asset("style.css"),
        links="\n".join(f'<li><a href="#{id}">{escape(title)}</a></li>' for id, title, _ in shown),
        sections="\n".join(section(*each) for each in shown),
        version=escape(version("ranp")),
        data=script_json({"survey": content.survey, "runs": runs, "resources": labels}),
        # Compressed: the page has two megabytes instead of five.
        plotly=base64.b64encode(gzip.compress(plotly.encode(), mtime=0)).decode(),
        script="\n".join(asset(name) for name in _SCRIPTS),
    )


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
