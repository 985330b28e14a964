"""Running a study: one ordinary run after the other; each resumes where it was stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranp.errors import BudgetError, InputError, OutOfMemoryError, nearest
from ranp.experiments.recipes import Recipe, read_recipe, recipe_file
from ranp.experiments.runs import RunFolder, check_same_recipe, prune_recipe, run_recipe
from ranp.experiments.studies._studies import AS_PUBLISHED, Study, Variant
from ranp.experiments.studies.results import Entry, Results, portable, read_entry, write_results
from ranp.progress import Progress

_OUT_OF_MEMORY = "out of memory: "


@dataclass(frozen=True)
class StudyRequest:
    """A study to run or to show.

    Attributes:
        study: The study.
        out: Folder of all its runs and results.
        data: Folder of the data set of each task.
        small: Whether to use the small recipes.
        seeds: Number of seeds.
        only: Labels of the variants to run; all if empty.
        changes: Fields to change in the recipes of all variants.
        recipe: Recipe file to use instead of the study's own recipes.

    Raises:
        InputError: A label in `only` is unknown.
    """

    study: Study
    out: Path
    data: Mapping[str, Path]
    small: bool = False
    seeds: int = 1
    only: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    recipe: Path | None = None

    def __post_init__(self) -> None:
        known = {variant.label for variant in self.study.variants}
        for label in self.only:
            if label not in known:
                raise InputError("--only", f"no variant is named {label!r}", hint=nearest(label, known))

    def variants(self) -> list[Variant]:
        """The variants to run."""
        return [variant for variant in self.study.variants if not self.only or variant.label in self.only]

    def base_recipe(self, task: str, changes: tuple[str, ...] = (), seed: int | None = None) -> Recipe:
        """The recipe of a task; the changes of a variant come before those of the request."""
        choice = self.study.tasks[task].small if self.small else self.study.tasks[task].real
        path, widths = (self.recipe, ()) if self.recipe else (recipe_file(choice.recipe), AS_PUBLISHED)
        return read_recipe(path, (*widths, *choice.changes, *changes, *self.changes), seed)

    def recipe_of(self, variant: Variant, seed: int) -> Recipe:
        """The recipe of one run.

        Raises:
            InputError: A change does not fit the recipe.
        """
        changes = variant.small if self.small and variant.small is not None else variant.changes
        if variant.plan_of:
            changes = (*changes, f"pruning.plan={self.folder(variant.plan_of, seed).plan.absolute()}")
        return self.base_recipe(variant.task, changes, seed)

    def folder(self, label: str, seed: int) -> RunFolder:
        """The folder of one run."""
        return RunFolder(self.out / label / f"seed-{seed}")


def generate_data(request: StudyRequest) -> None:
    """Generate the data set of each task whose folder does not exist."""
    for task, folder in request.data.items():
        if not folder.exists():
            request.base_recipe(task).data_set().generate(folder, count=request.study.tasks[task].count, seed=0)


def run_study(request: StudyRequest, results: Results, *, progress: Progress) -> None:
    """Run what has no results yet, add the results to those known so far, and write them after every run.

    Raises:
        RanpError: A run fails. Budgets that cannot be met and lack of memory are results instead.
    """
    # In the order of the seeds, so that variants can be compared early.
    runs = [(variant, seed) for seed in range(request.seeds) for variant in request.variants()]
    pending = [run for run in runs if not _collect_run(request, results, *run)]
    for done, (variant, seed) in enumerate(pending):
        progress("runs", done, len(pending))
        try:
            _run(request, results, variant, seed, progress)
            _collect_run(request, results, variant, seed)
        except (BudgetError, OutOfMemoryError) as error:
            reason = f"{_OUT_OF_MEMORY if isinstance(error, OutOfMemoryError) else ''}{error}"
            _add(results, variant, seed, {"recipe": _portable(request, variant, seed), "infeasible": reason})
        write_results(request.out, results)
        progress("runs", done + 1, len(pending))
    collect(request, results)


def collect(request: StudyRequest, results: Results) -> None:
    """Add the results of all finished runs, of variants that `only` excludes as well, and write them.

    Raises:
        InputError: There are results of another recipe.
    """
    for variant in request.study.variants:
        for seed in range(request.seeds):
            _collect_run(request, results, variant, seed)
    write_results(request.out, results)


def _collect_run(request: StudyRequest, results: Results, variant: Variant, seed: int) -> bool:
    """Add the results of one run, from its folder if it has one; returns whether nothing remains to be run."""
    folder = request.folder(variant.label, seed)
    entry = read_entry(folder, trained=request.study.trains) or results["runs"].get(variant.label, {}).get(str(seed))
    if entry is None:
        return False
    check_same_recipe(str(folder.path), entry["recipe"], _portable(request, variant, seed))
    _add(results, variant, seed, entry)
    # There may be enough memory now, for example on another machine.
    return not entry.get("infeasible", "").startswith(_OUT_OF_MEMORY)


def _add(results: Results, variant: Variant, seed: int, entry: Entry) -> None:
    results["runs"].setdefault(variant.label, {})[str(seed)] = entry


def _portable(request: StudyRequest, variant: Variant, seed: int) -> dict[str, Any]:
    return portable(request.recipe_of(variant, seed).model_dump(mode="json"))


def _run(request: StudyRequest, results: Results, variant: Variant, seed: int, progress: Progress) -> None:
    """Run one variant; a `BudgetError` or an `OutOfMemoryError` says that it is infeasible."""
    recipe, folder = request.recipe_of(variant, seed), request.folder(variant.label, seed)
    if variant.plan_of and not (plan := request.folder(variant.plan_of, seed).plan).exists():
        if reason := results["runs"].get(variant.plan_of, {}).get(str(seed), {}).get("infeasible"):
            raise BudgetError(f"no plan of {variant.plan_of}", reason)
        problem = f"needs the plan of {variant.plan_of}, seed {seed}, which is not in {plan}"
        raise InputError(variant.label, problem, hint=f"run that variant first, with --only {variant.plan_of}")
    run = run_recipe if request.study.trains else prune_recipe
    run(recipe, request.data[variant.task], folder.path, resume=True, progress=progress)
