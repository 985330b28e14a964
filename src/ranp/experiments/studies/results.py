"""Results of a study as plain data in one file; runs that have an entry in it are not run again.

```
{"format": "ranp-study", "version": 2, "study": NAME,
 "runs": {VARIANT: {SEED: {"recipe", "pruning", "result", "curve"} or {"recipe", "infeasible": REASON}}},
 "measured": {TASK: step times and memory}, "batches": {TASK: largest batches}}
```
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError
from ranp.experiments.recipes import upgrade_recipe
from ranp.experiments.runs import RunFolder
from ranp.files import is_rank_zero, read_json, write_json
from ranp.storage import load_plan

FORMAT, VERSION = "ranp-study", 2
RESULTS_FILE = "results.json"
"""Name of the file in the folder of a study."""

Results = dict[str, Any]
"""All results of a study, as in the file."""
Entry = dict[str, Any]
"""Results of one run."""


def read_results(name: str, paths: Iterable[Path]) -> Results:
    """Merge the results of a study from all of the files that exist; entries in several of them are from the first.

    Raises:
        ArtifactError: A file is damaged, or contains something else.
    """
    merged: Results = {"format": FORMAT, "version": VERSION, "study": name, "runs": {}, "measured": {}, "batches": {}}
    for path in paths:
        if path.exists():
            content = _read(path, name)
            for label, runs in content["runs"].items():
                merged["runs"][label] = {**runs, **merged["runs"].get(label, {})}
            for part in ("measured", "batches"):
                merged[part] = {**content[part], **merged[part]}
    return merged


def _read(path: Path, name: str) -> Results:
    content = read_json(path, format=FORMAT, version=VERSION, upgrades={1: _upgrade_from_1})
    parts = [content.get("runs"), content.get("measured"), content.get("batches")]
    if not all(isinstance(part, dict) and all(isinstance(each, dict) for each in part.values()) for part in parts):
        raise ArtifactError(str(path), "has no results in it", hint="the file may be damaged: run the study again")
    if content.get("study") != name:
        raise ArtifactError(str(path), f"contains results of the study {content.get('study')}, not of {name}")
    return content


def _upgrade_from_1(content: Results) -> Results:
    """Names of ranp 0.1 that have changed since."""
    for entry in [entry for runs in content["runs"].values() for entry in runs.values()]:
        entry["recipe"] = upgrade_recipe(entry["recipe"])
        if "result" in entry:
            entry["result"]["primary_metric"] = entry["result"].pop("headline")
    study = {"initialisation": "initialization"}.get(content["study"], content["study"])
    return {**content, "study": study}


def write_results(folder: Path, results: Results) -> None:
    """Write the file in the folder of a study atomically; in distributed runs only the first process writes."""
    if is_rank_zero():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RESULTS_FILE, results)


def measured(results: Results, part: str, task: str) -> dict[str, Any]:
    """What was measured of each variant of a task: the part `measured` or `batches`; empty if nothing was."""
    found: dict[str, Any] = results[part].get(task, {"variants": {}})["variants"]
    return found


def read_entry(folder: RunFolder, *, trained: bool) -> Entry | None:
    """Results of a run; None if it is not finished: `trained`, or just pruned."""
    if not (folder.result if trained else folder.plan).exists():
        return None
    pruning = _without_format(folder.read(folder.pruning))
    entry: Entry = {
        "recipe": portable(folder.read_recipe()),
        "pruning": {**pruning, "full_widths": dict(load_plan(folder.plan).full_widths)},
    }
    if trained:
        entry |= {"result": _without_format(folder.read(folder.result)), "curve": list(folder.read_curve())}
    return entry


def portable(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without the path of a plan, which differs from machine to machine."""
    return {**recipe, "pruning": {**recipe["pruning"], "plan": None}}


def _without_format(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in ("format", "version")}
