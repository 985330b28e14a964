"""A study as plain data: which recipes to run with which changes, and what to show of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Picture = Literal["curves", "sweep", "layers", "batches"]


@dataclass(frozen=True)
class Setting:
    """A recipe that comes with ranp, and what differs from it.

    Attributes:
        recipe: Its name.
        changes: Such as `training.steps=10`.
    """

    recipe: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A data set with a network to train on it.

    Attributes:
        real: For the real data set.
        small: For generated data, on a CPU.
        count: Samples to generate; see the data set.
    """

    real: Setting
    small: Setting
    count: int


@dataclass(frozen=True)
class Variant:
    """One of the networks that a study compares.

    Attributes:
        label: Its name, in tables and as a folder.
        changes: What differs from the task's recipe.
        small: The same for the small recipe, where that needs other numbers.
        task: Of the study, if it has several.
        plan_of: Variant whose plan to take over instead of scoring.
    """

    label: str
    changes: tuple[str, ...]
    small: tuple[str, ...] | None = None
    task: str = ""
    plan_of: str = ""


@dataclass(frozen=True)
class Study:
    """An experiment of several variants. The first variant of each task is what the others are compared with.

    Attributes:
        name: What `ranp reproduce` calls it.
        title: Of its page.
        question: What it answers, in a sentence.
        tasks: By name; the only one of most studies has no name.
        variants: In the order of the table.
        pictures: What to draw.
        trains: Whether the variants are trained after pruning.
        batches: Whether to look for the largest batch of each variant in the same memory.
        seeds: How many, unless told otherwise.
    """

    name: str
    title: str
    question: str
    tasks: Mapping[str, Task]
    variants: tuple[Variant, ...]
    pictures: tuple[Picture, ...] = ("curves",)
    trains: bool = True
    batches: bool = False
    seeds: int = 3

    def variants_of(self, task: str) -> tuple[Variant, ...]:
        """Variants of one task."""
        return tuple(variant for variant in self.variants if variant.task == task)
