"""The studies: comparisons on the hippocampus, and one for each claim of Xu et al., RANP, 3DV 2020.

A study is plain data: which recipes to run with which changes, and what to show of the results. A new study is one more
entry of `STUDIES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PlotKind = Literal["curves", "sweep", "layers", "batches"]


@dataclass(frozen=True)
class RecipeChoice:
    """A recipe that comes with ranp, and what to change in it.

    Attributes:
        recipe: Name of the recipe.
        changes: Fields to change, such as `training.steps=10`.
    """

    recipe: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A data set and a network to train on it.

    Attributes:
        real: Recipe for the real data set.
        small: Recipe for generated data, on a CPU.
        count: How many samples to generate; see the data set.
    """

    real: RecipeChoice
    small: RecipeChoice
    count: int


@dataclass(frozen=True)
class Variant:
    """One of the networks that a study compares.

    Attributes:
        label: Name in tables, and of the folder of its runs.
        changes: Fields to change in the recipe of the task.
        small: Fields to change in the small recipe, if it needs other values.
        task: Name of the task, if the study has several.
        plan_of: Label of a variant whose plan is applied instead of scoring.
    """

    label: str
    changes: tuple[str, ...]
    small: tuple[str, ...] | None = None
    task: str = ""
    plan_of: str = ""


@dataclass(frozen=True)
class Study:
    """A comparison of several variants. The first variant of each task is the baseline.

    Attributes:
        name: Name of the command, `ranp reproduce NAME`.
        title: Title of the page.
        question: The question that the study answers, in one sentence.
        tasks: Tasks by name; the only task of most studies has the empty name.
        variants: Variants in the order of the tables.
        plots: What to plot.
        trains: Whether the variants are trained after pruning.
        batches: Whether to search the largest batch of each variant in the same memory.
        seeds: Default number of seeds.
    """

    name: str
    title: str
    question: str
    tasks: Mapping[str, Task]
    variants: tuple[Variant, ...]
    plots: tuple[PlotKind, ...] = ("curves",)
    trains: bool = True
    batches: bool = False
    seeds: int = 3

    def variants_of(self, task: str) -> tuple[Variant, ...]:
        """Variants of one task."""
        return tuple(variant for variant in self.variants if variant.task == task)


BEST_METHODS = ("ranp-f", "uniform")
"""Methods that the hippocampus study also runs with other budgets."""

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

AS_PUBLISHED = ("pruning.min_width=1", "pruning.round_to=1")
"""Widths as in the paper: neither a guard against narrow layers nor rounding."""

_FULL = ("pruning.method=none",)
_RANP_F = ("pruning.method=ranp-f",)


def _at(method: str, percent: int) -> Variant:
    """A variant that keeps a percentage of the multiply-adds."""
    return Variant(f"{method}-{percent}", (f"pruning.method={method}", f"pruning.budget.macs={percent / 100}"))


def _twice(variant: Variant) -> Variant:
    """The same variant, trained for twice as many steps as in the recipe of the task."""
    real, small = ((*variant.changes, f"training.steps={steps}") for steps in (2400, 300))
    return Variant(f"{variant.label}-twice", real, small=small)


def _sparse(method: str, sparsity: float) -> Variant:
    """A variant that removes a fraction of the neurons."""
    return Variant(f"{method}-{sparsity:.0%}".rstrip("%"), (f"pruning.method={method}", _budget(sparsity)))


def _initialized(method: str, weights: str) -> Variant:
    """A variant with one initialization of the weights, both for scoring and for training."""
    changes = (f"pruning.method={method}", f"network.weights={weights}", f"pruning.weights={weights}")
    return Variant(f"{method}-{weights}", (*changes, _budget(0.78)), small=(*changes, _budget(0.6)))


def _at_size(part: str, size: int, small: int) -> Variant:
    """A variant that is pruned at a smaller spatial size."""
    real_changes, small_changes = ((*_RANP_F, f"pruning.data={{size: {edge}}}") for edge in (size, small))
    return Variant(f"pruned-at-{part}-size", real_changes, small=small_changes)


def _budget(sparsity: float) -> str:
    return f"pruning.budget={{sparsity: {sparsity}}}"


_HIPPOCAMPUS = Task(
    RecipeChoice("hippocampus"),
    RecipeChoice("small-decathlon", ("network.arguments={width: 16}",)),
    count=20,
)
# Generated shapes of a size that can be halved at all six levels.
_DEEP = ("network.name=unet3d-23", "network.arguments={width: 8}", "data.size=32")
_SHAPES = Task(RecipeChoice("shapenet"), RecipeChoice("small-shapenet"), count=4)
# Wide enough for high sparsities, since the 50 outputs are never pruned.
_WIDE = ("network.arguments={width: 16, levels: 3}", "training.steps=200")
_WIDE_SHAPES = Task(RecipeChoice("shapenet"), RecipeChoice("small-shapenet", _WIDE), count=4)
_NARROW_15_LAYERS = "network={name: unet3d, arguments: {width: 4}}"
_DEEP_SHAPES = Task(RecipeChoice("shapenet-23"), RecipeChoice("small-shapenet", _DEEP), count=4)
# A plan can only be applied to a network with the same hidden widths.
_SAME_WIDTHS = ("network.name=unet3d-23", "network.arguments={width: 32}", _budget(0.8))

_ALL = (
    Study(
        name="hippocampus",
        title="Hippocampus: networks pruned to 5% of the multiply-adds",
        question="How well does a 3D U-Net segment the hippocampus when it keeps 5% of its multiply-adds, depending on "
        "how its channels are selected, and compared to plain narrower networks?",
        tasks={"": _HIPPOCAMPUS},
        variants=(
            Variant("full", _FULL),
            *(_at(method, 5) for method in ("random", "layerwise", "weighted", "ranp-m")),
            *(_at(method, 5) for method in (*BEST_METHODS, "constant")),
            *(_at(method, percent) for method in BEST_METHODS for percent in (10, 25)),
        ),
    ),
    Study(
        name="longer",
        title="Hippocampus: trained twice as long",
        question="Do pruned networks catch up with the full one when all are trained for twice as many steps?",
        tasks={"": _HIPPOCAMPUS},
        variants=tuple(
            variant
            for once in (Variant("full", _FULL), *(_at(method, 5) for method in BEST_METHODS))
            for variant in (once, _twice(once))
        ),
    ),
    Study(
        name="small-size",
        title="Pruned at a small size, trained at a large one",
        question="Is a plan made at a smaller spatial size as good as one made at the size used for training?",
        tasks={"": _SHAPES},
        variants=(
            Variant("full", _FULL),
            Variant("pruned-at-full-size", _RANP_F),
            _at_size("half", 32, small=12),
            _at_size("quarter", 16, small=6),
        ),
        plots=("curves", "layers"),
    ),
    Study(
        name="transfer",
        title="Pruned on one data set, trained on another",
        question="Is a plan made on another data set, with other input channels and classes, as good as one made "
        "on the data set itself?",
        tasks={
            "shapenet": Task(RecipeChoice("shapenet", _SAME_WIDTHS), _WIDE_SHAPES.small, count=4),
            "brats18": Task(RecipeChoice("brats18", _SAME_WIDTHS), RecipeChoice("small-brats18"), count=12),
        },
        variants=(
            Variant("shapenet-full", _FULL, task="shapenet"),
            Variant("shapenet-ranp-f", _RANP_F, task="shapenet"),
            Variant("brats18-full", _FULL, task="brats18"),
            Variant("brats18-ranp-f", _RANP_F, task="brats18"),
            Variant("shapenet-by-plan-of-brats18", _RANP_F, task="shapenet", plan_of="brats18-ranp-f"),
            Variant("brats18-by-plan-of-shapenet", _RANP_F, task="brats18", plan_of="shapenet-ranp-f"),
        ),
        plots=("curves", "layers"),
    ),
    Study(
        name="deep",
        title="The 23-layer network at 80% sparsity",
        question="Can the 23-layer U-Net be trained on one device without 80% of its neurons, and how good is it then?",
        tasks={"": _DEEP_SHAPES},
        variants=(
            Variant("full", _FULL),
            Variant("ranp-f-80", (*_RANP_F, _budget(0.8))),
            Variant("full-15-layers", (*_FULL, "network.name=unet3d"), small=(*_FULL, _NARROW_15_LAYERS)),
        ),
    ),
    Study(
        name="batch",
        title="A larger batch in the same memory",
        question="How many samples of the pruned network fit in the memory that the full network needs for one?",
        tasks={
            "": Task(
                RecipeChoice("shapenet-23", ("training.batch=1",)),
                # Few classes, since the outputs take as much memory in the pruned network as in the full one.
                RecipeChoice("small-decathlon", (*_DEEP[:2], "data.size=[32, 32, 32]")),
                count=4,
            )
        },
        variants=(Variant("full", _FULL), Variant("ranp-f-80", (*_RANP_F, _budget(0.8)))),
        plots=("batches",),
        trains=False,
        batches=True,
        seeds=1,
    ),
    Study(
        name="initialization",
        title="Orthogonal and Glorot initialization",
        question="How does the initialization used for scoring change importance and the neurons kept, layer by layer?",
        tasks={"": _WIDE_SHAPES},
        variants=tuple(
            _initialized(method, weights) for method in ("vanilla", "ranp-f") for weights in ("glorot", "orthogonal")
        ),
        plots=("layers",),
        trains=False,
    ),
    Study(
        name="sweep",
        title="Accuracy and resources over sparsities",
        question="How do accuracy and resources change as more neurons are removed, with and without reweighting?",
        tasks={"": _WIDE_SHAPES},
        variants=(
            Variant("full", _FULL),
            *(_sparse(method, sparsity) for method in ("ranp-f", "weighted", "vanilla") for sparsity in SPARSITIES),
        ),
        plots=("sweep",),
    ),
    Study(
        name="2d",
        title="A 2D network",
        question="Does the same hold for a 2D U-Net, which segments the hippocampus slice by slice?",
        tasks={"": Task(RecipeChoice("hippocampus-2d"), RecipeChoice("small-decathlon-2d"), count=20)},
        variants=(Variant("full", _FULL), _at("ranp-f", 25), _at("uniform", 25)),
    ),
)

STUDIES = {study.name: study for study in _ALL}
