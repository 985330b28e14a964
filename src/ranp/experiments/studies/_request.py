"""What is asked of a study: where its data and runs are, how many seeds, which variants, what is changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ranp.errors import InputError, nearest
from ranp.experiments.recipes import Recipe, read_recipe
from ranp.experiments.recipes._files import recipe_file
from ranp.experiments.runs._folder import RunFolder
from ranp.experiments.studies._study import Setting, Study, Variant


@dataclass(frozen=True)
class Request:
    """A study to run, or to show.

    Attributes:
        study: Which.
        out: Folder of all its runs and figures.
        data: Folder of every task's data set.
        small: Whether to use the small recipes.
        seeds: How many.
        only: Labels of the variants to run; all if empty.
        changes: What differs from the recipes of all variants.
        recipe: Instead of the study's own.

    Raises:
        InputError: There is no variant of a name.
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
                raise InputError("--only", got=repr(label), expected="a variant", hint=nearest(label, known))

    def chosen(self) -> list[Variant]:
        """The variants to run."""
        return [variant for variant in self.study.variants if not self.only or variant.label in self.only]

    def setting(self, task: str) -> Setting:
        """The recipe of a task at the size that was asked for."""
        return self.study.tasks[task].small if self.small else self.study.tasks[task].real

    def base(self, task: str) -> Recipe:
        """The recipe that a task's variants change."""
        return self._read(task, ())

    def recipe_of(self, variant: Variant, seed: int) -> Recipe:
        """The recipe of one run.

        Raises:
            InputError: A change that does not fit.
        """
        changes = variant.small if self.small and variant.small is not None else variant.changes
        if variant.plan_of:
            changes = (*changes, f"pruning.plan={self.folder(variant.plan_of, seed).plan.absolute()}")
        return self._read(variant.task, changes, seed)

    def folder(self, label: str, seed: int) -> RunFolder:
        """The folder of one run."""
        return RunFolder(self.out / label / f"seed-{seed}")

    def _read(self, task: str, changes: tuple[str, ...], seed: int | None = None) -> Recipe:
        setting = self.setting(task)
        path = self.recipe or recipe_file(setting.recipe)
        return read_recipe(path, (*setting.changes, *changes, *self.changes), seed)
