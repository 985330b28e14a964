"""The file of a survey, `survey.json`; its format is described in `survey.schema.json`."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ranp.arguments import checked
from ranp.errors import ArtifactError
from ranp.files import FilePath, read_json, write_json
from ranp.plan import FORMAT_VERSION as PLAN_VERSION

FORMAT, FORMAT_VERSION = "ranp-survey", 2
FILE_NAME = "survey.json"


@checked
def write_survey(folder: FilePath, found: Mapping[str, Any]) -> Path:
    """Write a survey as `survey.json` into the folder of its plan. The file is written completely or not at all.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    path = Path(folder) / FILE_NAME
    try:
        write_json(path, found)
    except OSError as error:
        raise ArtifactError(str(path), f"cannot be written ({error.strerror})") from error
    return path


@checked
def read_survey(path: FilePath) -> dict[str, Any]:
    """Read a survey, of this or an earlier version of the format. Every field is checked. Needs jsonschema.

    Raises:
        ArtifactError: The file is missing, damaged, not a survey, or of a newer version.
    """
    schema = json.loads(files("ranp.explorer").joinpath("survey.schema.json").read_text(encoding="utf-8"))
    content = read_json(Path(path), format=FORMAT, version=FORMAT_VERSION, upgrades={1: _from_version_1}, schema=schema)
    if not _is_consistent(content):
        problem = "the parts of this survey do not belong together"
        raise ArtifactError(str(path), problem, hint="restore the file, or prune again")
    return content


def _from_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 renamed three fields."""
    plan, renamed = dict(content["plan"]), {"mixes": "has_cross_channel_norm", "lam": "resource_weight"}
    plan = {renamed.get(name, name): value for name, value in plan.items()} | {"version": PLAN_VERSION}
    content = {"unprunable" if name == "frozen" else name: value for name, value in content.items()}
    return {**content, "version": 2, "plan": plan}


def _is_consistent(content: Mapping[str, Any]) -> bool:
    """Whether all numbers of groups, axes, nodes and steps exist."""
    groups, axes, steps = content["groups"], content["axes"], content["steps"]
    names = {layer["name"] for layer in content["layers"]}
    forms = [*axes, *(layer["width"] for layer in content["layers"])]
    used = [axis for entry in content["allocations"] for axis in entry["axes"]]
    rescales = content.get("rescales", [])
    used += [entry["axis"] for entry in [*content["settings"], *rescales]]
    indexed = [*rescales, *(member for group in groups for member in group["members"])]
    return (
        all(group < len(groups) for form in forms for group, _ in form["groups"])
        and all(axis < len(axes) for axis in used)
        and all(source < number for number, node in enumerate(content["nodes"]) for source in node["sources"])
        and all(node["name"] in names for node in content["nodes"] if node["kind"] == "layer")
        and all(set(stage["layers"]) <= names for stage in content["stages"])
        and all(len(step["widths"]) == len(groups) for step in steps)
        and all(width <= group["width"] for step in steps for width, group in zip(step["widths"], groups, strict=True))
        and all(_count(group["order"]) == group["width"] for group in groups)
        and all(entry["tensor"] in content["plan"]["shapes"] for entry in indexed)
        and names == set(content["plan"]["full_widths"])
        and content["chosen"] < len(steps)
    )


def _count(runs: str) -> int:
    """Number of indices in runs."""
    ends = [run.split("-") for run in runs.split(",")]
    return sum(int(pair[-1]) - int(pair[0]) + 1 for pair in ends)
