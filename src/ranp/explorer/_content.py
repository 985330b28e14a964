"""What a report shows: a pruned network, read from its folder, and summaries of runs, given as plain data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranp.costs import Cost
from ranp.errors import ArtifactError
from ranp.explorer._html import asset
from ranp.explorer._survey_file import FILE_NAME, read_survey
from ranp.files import schema_mismatch
from ranp.plan import Plan
from ranp.storage import load_plan
from ranp.tables import Table

NOT_METRICS = frozenset({"step", "seconds", "loss", "rate"})
"""Columns of a validation curve that are not metrics."""


@dataclass(frozen=True)
class RunSummary:
    """The files of a training run as plain data; the run may still be unfinished.

    Attributes:
        name: Name of the run.
        recipe: The recipe: `data`, `pruning` and `training`.
        pruning: Result of pruning: `cost`, `full_cost` and others; None before pruning.
        result: Result of training: `primary_metric`, `best`, `cost`, `step_seconds` and others; None before the end.
        curve: One row per validation: step, seconds, loss, rate and metrics.
        evaluation: Result of the latest evaluation: `step` and `metrics`; None if there was none.

    Raises:
        ArtifactError: A field that the report shows is missing or wrong.

    Example:
        >>> recipe = {"data": {}, "pruning": {}, "training": {"steps": 20}}
        >>> run = RunSummary("small", recipe, None, None, ({"step": 10, "seconds": 2, "dice": 0.5},))
        >>> run.metrics, run.state
        (['dice'], 'started, but not pruned yet')
    """

    name: str
    recipe: dict[str, Any]
    pruning: dict[str, Any] | None
    result: dict[str, Any] | None
    curve: tuple[dict[str, float | None], ...]
    evaluation: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        schema = json.loads(asset("run.schema.json"))
        for part in ("recipe", "pruning", "result", "evaluation"):
            content = getattr(self, part)
            if content is not None and (problem := schema_mismatch({part: content}, schema, "report")):
                file = "run.json" if part == "recipe" else f"{part}.json"
                raise ArtifactError(f"{self.name}/{file}", problem, hint="restore the file that ranp train wrote")

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, the primary metric first."""
        names = [name for name in (self.curve[0] if self.curve else ()) if name not in NOT_METRICS]
        primary = [] if self.result is None else [self.result["primary_metric"]]
        return list(dict.fromkeys([*primary, *names]))

    @property
    def state(self) -> str:
        """How far an unfinished run has come; empty for a finished run."""
        if self.result is not None:
            return ""
        if self.pruning is None:
            return "started, but not pruned yet"
        if not self.curve:
            return "pruned, but training has not reached its first validation"
        total = self.recipe["training"].get("steps")
        step = f"{self.curve[-1]['step']:,.0f}" + (f" of {total:,}" if total else "")
        return f"in training: the latest validation was at step {step}"


@dataclass(frozen=True)
class Content:
    """What a report shows of a folder. The plan is None for a run that is not pruned yet."""

    name: str
    plan: Plan | None
    survey: dict[str, Any] | None
    run: RunSummary | None
    others: tuple[RunSummary, ...]
    comparison: Table | None

    @property
    def runs(self) -> tuple[RunSummary, ...]:
        """All runs, the folder's own first."""
        return self.others if self.run is None else (self.run, *self.others)

    @property
    def costs(self) -> tuple[Cost, Cost]:
        """Costs of the pruned and of the full network, at the input shape that it was pruned for."""
        assert self.plan is not None
        if self.survey is None:
            return self.plan.cost, self.plan.full_cost
        step = self.survey["steps"][self.survey["chosen"]]
        return Cost(**step["cost"]), Cost(**self.survey["plan"]["full_cost"])


def read_content(
    folder: Path, run: RunSummary | None = None, runs: Sequence[RunSummary] = (), comparison: Table | None = None
) -> Content:
    """Read the plan and the survey of a pruned network, which the folder of a run has in `plan/`."""
    if run is None and not (folder / "artifact.json").is_file():
        problem = "the folder has neither artifact.json nor run.json" if folder.is_dir() else "no such folder"
        raise ArtifactError(str(folder), problem, expected="a pruned network (ranp.save) or a run (ranp train)")
    plan_folder = folder if run is None else folder / "plan"
    plan = load_plan(plan_folder) if run is None or plan_folder.exists() else None
    path = folder / FILE_NAME
    survey = read_survey(path) if path.exists() else None
    if plan is not None and survey is not None:
        names, widths = (group["name"] for group in survey["groups"]), survey["steps"][survey["chosen"]]["widths"]
        if dict(zip(names, widths, strict=True)) != {name: len(kept) for name, kept in plan.keep.items()}:
            hint = "remove it, or restore the files that belong together"
            raise ArtifactError(str(path), "belongs to another plan than the one in this folder", hint=hint)
    return Content(folder.resolve().name, plan, survey, run, tuple(runs), comparison)
