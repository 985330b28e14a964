"""The file of a survey; its format is described in `survey.schema.json`."""

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError
from ranp.files import write_json
from ranp.optional import optional_import

FORMAT, FORMAT_VERSION = "ranp-survey", 1
NAME = "survey.json"


def write_survey(folder: str | os.PathLike[str], found: Mapping[str, Any]) -> Path:
    """Write a survey as `survey.json` into a folder, next to the plan, at once or not at all.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    path = Path(folder) / NAME
    try:
        write_json(path, found)
    except OSError as error:
        raise ArtifactError(str(path), got=str(error), expected="a place that can be written") from error
    return path


def read_survey(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a survey; every field is checked, and nothing is executed. Needs jsonschema.

    Raises:
        ArtifactError: It is missing, damaged, something else, or of another version.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
        problem = _problem(content)
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise ArtifactError(
            str(path),
            got=problem,
            expected=f"a survey as ranp writes it, format version {FORMAT_VERSION}",
            hint="it is damaged or of another version: restore it, or prune again",
        )
    return dict(content)


def _refuse(constant: str) -> None:
    raise ValueError(f"the number {constant}")


def _problem(content: Any) -> str:
    """What is wrong with a survey; empty if nothing is."""
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, FORMAT_VERSION):
        return "another kind of file, or another version of it"
    schema = json.loads(files("ranp.explorer").joinpath("survey.schema.json").read_text(encoding="utf-8"))
    found = mismatch(content, schema)
    return found or ("" if _is_consistent(content) else "parts that do not belong together")


def mismatch(content: Any, schema: Mapping[str, Any]) -> str:
    """Where JSON does not match a schema, in words; empty if it does. Needs jsonschema.

    Example:
        >>> mismatch({"steps": "three"}, {"properties": {"steps": {"type": "integer"}}})
        "$.steps that is wrong ('three' is not of type 'integer')"
    """
    validator = optional_import("jsonschema", "report", extra="report").Draft202012Validator
    found = next(iter(validator(schema).iter_errors(content)), None)
    return "" if found is None else f"{found.json_path} that is wrong ({found.message[:80]})"


def _is_consistent(content: Mapping[str, Any]) -> bool:
    """Whether all numbers of groups, axes, nodes and steps exist."""
    groups, axes, steps = content["groups"], content["axes"], content["steps"]
    names = {layer["name"] for layer in content["layers"]}
    forms = [*axes, *(layer["width"] for layer in content["layers"])]
    used = [axis for entry in content["allocations"] for axis in entry["axes"]]
    used += [entry["axis"] for entry in content["settings"]]
    return (
        all(group < len(groups) for form in forms for group, _ in form["groups"])
        and all(axis < len(axes) for axis in used)
        and all(source < number for number, node in enumerate(content["nodes"]) for source in node["sources"])
        and all(node["name"] in names for node in content["nodes"] if node["kind"] == "layer")
        and all(set(stage["layers"]) <= names for stage in content["stages"])
        and all(_fits(step["widths"], groups) for step in steps)
        and all(_count(group["order"]) == group["width"] for group in groups)
        and all(member["tensor"] in content["plan"]["shapes"] for group in groups for member in group["members"])
        and names == set(content["plan"]["full_widths"])
        and content["chosen"] < len(steps)
    )


def _fits(widths: list[int], groups: list[dict[str, Any]]) -> bool:
    return len(widths) == len(groups) and all(
        width <= group["width"] for width, group in zip(widths, groups, strict=True)
    )


def _count(runs: str) -> int:
    """Number of indices in runs."""
    ends = [run.split("-") for run in runs.split(",")]
    return sum(int(pair[-1]) - int(pair[0]) + 1 for pair in ends)
