"""What a page tells, read from folders."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError
from ranp.experiments.runs._compare import NO_METRIC
from ranp.experiments.runs._folder import EVALUATION, PRUNING, RunFolder, read_curve, read_json
from ranp.explorer import NAME as SURVEY
from ranp.explorer import mismatch, read_survey
from ranp.plan import Plan
from ranp.storage import load_plan

Row = dict[str, float | None]


@dataclass(frozen=True)
class Run:
    """A run, as far as it has come.

    Attributes:
        name: Of its folder.
        recipe: What it does.
        pruning: What pruning found; None if it is not done.
        result: What came out; None if it is not finished.
        curve: A row for every validation.
        evaluation: What `ranp evaluate` found last; None if it was never asked.
    """

    name: str
    recipe: dict[str, Any]
    pruning: dict[str, Any] | None
    result: dict[str, Any] | None
    curve: tuple[Row, ...]
    evaluation: dict[str, Any] | None

    @property
    def figures(self) -> list[str]:
        """Names of the metric's figures, the primary_metric first."""
        names = [name for name in (self.curve[0] if self.curve else ()) if name not in NO_METRIC]
        if self.result is None:
            return names
        primary_metric = self.result["primary_metric"]
        return [primary_metric, *(name for name in names if name != primary_metric)]

    @property
    def state(self) -> str:
        """What is still to be done; empty for a finished run."""
        if self.result is not None:
            return ""
        if self.pruning is None:
            return "begun, but not pruned yet"
        if not self.curve:
            return "pruned, but training has not reached its first validation"
        asked = self.recipe["training"].get("steps")
        return f"in training: the last validation was at step {self.curve[-1]['step']:,.0f}" + (
            f" of {asked:,}" if asked else ""
        )


@dataclass(frozen=True)
class Content:
    """What a page tells.

    Attributes:
        name: Of the folder.
        plan: What was decided; None if it is not yet.
        survey: What could have been decided; None where there is no such file.
        runs: The folder's own run, if it is one, then those beside it.
        own: Whether the first run is the folder's own.
    """

    name: str
    plan: Plan | None
    survey: dict[str, Any] | None
    runs: tuple[Run, ...]
    own: bool


def read_content(folder: Path, beside: Sequence[Path] = ()) -> Content:
    """Read the folder of a pruned network, or of a run that may be half done.

    Args:
        folder: What `ranp.save` or `ranp train` wrote.
        beside: Folders of runs to compare with.

    Raises:
        ArtifactError: It is neither, or a file in it is damaged.
    """
    own = RunFolder(folder).record.is_file()
    if not own and not (folder / "artifact.json").is_file():
        raise ArtifactError(
            str(folder),
            got="a folder without artifact.json or run.json" if folder.is_dir() else "no folder",
            expected="the folder of a pruned network (as ranp.save writes it) or of a run (as ranp train writes it)",
        )
    home = RunFolder(folder).plan if own else folder
    plan = load_plan(home) if not own or home.exists() else None
    survey = read_survey(folder / SURVEY) if (folder / SURVEY).exists() else None
    if plan is not None and survey is not None:
        _check_same(folder / SURVEY, plan, survey)
    runs = [read_run(path) for path in ([folder] if own else []) + list(beside)]
    return Content(folder.resolve().name, plan, survey, tuple(_told_apart(runs)), own)


def _check_same(path: Path, plan: Plan, survey: dict[str, Any]) -> None:
    widths = survey["steps"][survey["chosen"]]["widths"]
    names = [group["name"] for group in survey["groups"]]
    if dict(zip(names, widths, strict=True)) != {name: len(kept) for name, kept in plan.keep.items()}:
        raise ArtifactError(
            str(path),
            got="the survey of another plan",
            expected="that of the plan beside it",
            hint="remove it, or put the files back that belong together",
        )


def read_run(folder: Path) -> Run:
    """Read a run, finished or not.

    Raises:
        ArtifactError: The folder is no run's, or a file in it is damaged.
    """
    paths = RunFolder(folder)
    pruned, finished, judged = paths.pruning.exists(), paths.result.exists(), paths.evaluation.exists()
    evaluation = _checked("evaluation", paths.evaluation, read_json(paths.evaluation, EVALUATION)) if judged else None
    return Run(
        name=folder.resolve().name,
        recipe=_checked("recipe", paths.record, read_json(paths.record))["recipe"],
        pruning=_checked("pruning", paths.pruning, read_json(paths.pruning, PRUNING)) if pruned else None,
        result=_checked("result", paths.result, read_json(paths.result)) if finished else None,
        curve=read_curve(paths.curve) if paths.curve.exists() else (),
        evaluation=evaluation,
    )


def _checked(part: str, path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file, if all that a page shows of it is there."""
    schema = json.loads(files("ranp.explorer").joinpath("assets", "run.schema.json").read_text(encoding="utf-8"))
    problem = mismatch({part: content}, schema)
    if problem:
        raise ArtifactError(str(path), got=problem, expected="a file that ranp train wrote", hint="restore it")
    return content


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Number runs whose folders have the same name."""
    names: list[str] = []
    for run in runs:
        taken = sum(name == run.name or name.startswith(f"{run.name} (") for name in names)
        names.append(f"{run.name} ({taken + 1})" if taken else run.name)
    return [replace(run, name=name) for name, run in zip(names, runs, strict=True)]
