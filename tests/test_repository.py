"""What surrounds the code: workflows, issue forms and the Makefile name what exists."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.documents import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
SCRIPTS = [*WORKFLOWS, ROOT / ".ci" / "run", ROOT / "CONTRIBUTING.md", ROOT / ".github" / "pull_request_template.md"]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def made(path: Path) -> set[str]:
    """Targets that a file calls: `make test`, or the steps of a loop over them."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"(?:^|[`\s])make ([a-z][\w-]*)", text))
    for steps in re.findall(r"^for step in (.*); do$", text, flags=re.MULTILINE):
        found |= set(steps.split())
    return found


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_and_forms() -> None:
    assert {path.stem for path in WORKFLOWS} == {"ci", "docs", "release", "zoo"}
    assert len(FORMS) == 3


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_target_exists(path: Path) -> None:
    assert made(path) <= targets()


def test_targets_are_found() -> None:
    """The test above would pass on anything if it found none."""
    assert made(ROOT / ".ci" / "run") == {"setup", "test", "test-zoo"}
    assert made(ROOT / ".github" / "workflows" / "ci.yml") >= {"setup", "lint", "tests"}
    assert made(ROOT / "CONTRIBUTING.md") >= {"test", "test-fast", "test-zoo", "mutants"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_can_be_read(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}, "jobs that need more say so themselves"
    assert all(step.keys() & {"run", "uses"} for step in steps(workflow))
    assert all(re.fullmatch(r"[\w-]+/[\w/-]+@[\w./-]+", step["uses"]) for step in steps(workflow) if "uses" in step)
    assert all(set(job.get("needs", "").split()) <= workflow["jobs"].keys() for job in workflow["jobs"].values())


def test_all_supported_versions_are_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    matrix = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', project)
    assert oldest is not None
    assert matrix["python"][0] == oldest[1]
    torch = re.search(r'"torch>=([\d.]+)"', project)
    assert torch is not None
    assert {entry["torch"] for entry in matrix["include"]} == {f"{torch[1]}.0"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_can_be_read(path: Path) -> None:
    form = read(path)
    assert form.keys() == {"name", "description", "labels", "body"}
    names = [entry["id"] for entry in form["body"]]
    assert len(names) == len(set(names))
    assert all(entry["attributes"]["label"] for entry in form["body"])
    assert any(entry.get("validations", {}).get("required") for entry in form["body"])


def test_the_linter_of_the_hooks_is_the_one_that_is_installed() -> None:
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"]
    revision = next(entry["rev"] for entry in hooks if entry["repo"].endswith("ruff-pre-commit"))
    assert revision == f"v{version('ruff')}"


def test_what_the_wheel_includes_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    included = re.search(r'force-include\]\n(\w+) = "ranp/experiments/recipes/files"', project)
    assert included is not None
    assert list((ROOT / included[1]).glob("*.yaml"))


def test_paths_in_the_guide_exist() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:src|tests|docs|recipes|benchmarks)/[\w/.*-]*)`", guide)
    assert len(paths) > 10
    missing = [path for path in paths if not list(ROOT.glob(path.rstrip("/")))]
    assert missing == []
