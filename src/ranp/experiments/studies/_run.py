"""Running a study: one ordinary run after the other, each of which goes on where it was stopped."""

from collections.abc import Iterator
from pathlib import Path

from ranp.errors import BudgetError, InputError, OutOfMemoryError
from ranp.experiments.recipes import Recipe
from ranp.experiments.runs._train import prune_recipe, run_recipe
from ranp.experiments.studies._figures import Entry, Figures, infeasible, is_figures_of, read_run, write_figures
from ranp.experiments.studies._request import Request
from ranp.experiments.studies._study import Variant
from ranp.progress import Progress


def run_study(request: Request, figures: Figures, *, tell: Progress) -> None:
    """Run what has no figures yet; they are written after every run.

    Args:
        request: Which study, and how.
        figures: What is known; added to.
        tell: Told of progress.

    Raises:
        RanpError: As `run_recipe`, but for budgets that cannot be met and for memory that is short: those are
            figures, too.
    """
    pending = [(variant, seed) for variant, seed in _runs(request) if not collected(request, figures, variant, seed)]
    for done, (variant, seed) in enumerate(pending):
        tell("runs", done, len(pending))
        _keep(figures, variant, seed, _run(request, figures, variant, seed, tell))
        write_figures(request.out, figures)
        tell("runs", done + 1, len(pending))


def collect(request: Request, figures: Figures) -> None:
    """Take up the figures of all runs that are finished, and write them."""
    for variant in request.study.variants:
        for seed in range(request.seeds):
            collected(request, figures, variant, seed)
    write_figures(request.out, figures)


def collected(request: Request, figures: Figures, variant: Variant, seed: int) -> bool:
    """Take up the figures of one run, from its folder if it is there; tell whether it needs not be run.

    Raises:
        InputError: There are figures, but of another recipe.
    """
    folder = request.folder(variant.label, seed)
    entry = read_run(folder, trained=request.study.trains) or figures["runs"].get(variant.label, {}).get(str(seed))
    if entry is None:
        return False
    is_figures_of(entry, request.recipe_of(variant, seed), str(folder.path))
    _keep(figures, variant, seed, entry)
    # Memory may be free by now, or this another machine.
    return not entry.get("infeasible", "").startswith(_MEMORY)


_MEMORY = "out of memory: "


def _runs(request: Request) -> Iterator[tuple[Variant, int]]:
    """Seed by seed, so that variants can be compared early."""
    for seed in range(request.seeds):
        for variant in request.chosen():
            yield variant, seed


def _keep(figures: Figures, variant: Variant, seed: int, entry: Entry) -> None:
    figures["runs"].setdefault(variant.label, {})[str(seed)] = entry


def _run(request: Request, figures: Figures, variant: Variant, seed: int, tell: Progress) -> Entry:
    recipe, folder = request.recipe_of(variant, seed), request.folder(variant.label, seed)
    if variant.plan_of and (reason := _no_plan(request, figures, variant, seed)):
        return infeasible(recipe, reason)
    try:
        _ordinary_run(request, recipe, request.data[variant.task], folder.path, tell)
    except BudgetError as error:
        return infeasible(recipe, str(error))
    except OutOfMemoryError as error:
        return infeasible(recipe, f"{_MEMORY}{error}")
    entry = read_run(folder, trained=request.study.trains)
    assert entry is not None
    return entry


def _ordinary_run(request: Request, recipe: Recipe, data: Path, out: Path, tell: Progress) -> None:
    run = run_recipe if request.study.trains else prune_recipe
    run(recipe, data, out, resume=True, tell=tell)


def _no_plan(request: Request, figures: Figures, variant: Variant, seed: int) -> str:
    """Why there is no plan to take over, if there is none."""
    if request.folder(variant.plan_of, seed).plan.exists():
        return ""
    if reason := figures["runs"].get(variant.plan_of, {}).get(str(seed), {}).get("infeasible"):
        return f"no plan of {variant.plan_of}: {reason}"
    raise InputError(
        variant.label,
        got=f"no plan in {request.folder(variant.plan_of, seed).plan}",
        expected=f"the plan of {variant.plan_of}, seed {seed}",
        hint=f"run that one first, with --only {variant.plan_of}",
    )
