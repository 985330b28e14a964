"""The studies: the comparisons on the hippocampus, and one for each claim of Xu et al., RANP, 3DV 2020."""

from collections.abc import Iterable

from ranp.experiments.studies._study import Setting, Study, Task, Variant

BEST_TWO = ("ranp-f", "uniform")
"""Methods of the hippocampus study that are also run at other budgets."""

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

_FULL = ("pruning.method=none",)
_RANP_F = ("pruning.method=ranp-f",)


def _at(method: str, percent: int, label: str = "") -> Variant:
    """A variant that keeps a percentage of the multiply-adds."""
    changes = (f"pruning.method={method}", f"pruning.budget.macs={percent / 100}")
    return Variant(f"{label or method}-{percent}", changes)


def _twice(variant: Variant) -> Variant:
    """The same, trained for twice the steps of the task's recipe."""
    real, small = ((*variant.changes, f"training.steps={steps}") for steps in (2400, 300))
    return Variant(f"{variant.label}-twice", real, small=small)


def _sparse(methods: Iterable[str]) -> tuple[Variant, ...]:
    """Variants that remove a fraction of the neurons."""
    return tuple(
        Variant(f"{method}-{sparsity:.0%}".rstrip("%"), (f"pruning.method={method}", _budget(sparsity)))
        for method in methods
        for sparsity in SPARSITIES
    )


def _drawn(method: str, weights: str) -> tuple[str, ...]:
    """Weights to score with, and to train from, that are drawn in one way."""
    return f"pruning.method={method}", f"network.weights={weights}", f"pruning.weights={weights}"


def _budget(sparsity: float) -> str:
    return f"pruning.budget={{sparsity: {sparsity}}}"


_HIPPOCAMPUS = Task(
    Setting("hippocampus"),
    Setting("small-decathlon", ("network.arguments={width: 16}", "pruning.min_width=1")),
    count=20,
)
# Generated shapes of a size that six levels can halve.
_DEEP = ("network.name=unet3d-23", "network.arguments={width: 8}", "data.size=32", "pruning.min_width=1")
_SHAPES = Task(Setting("shapenet"), Setting("small-shapenet"), count=4)
# Wide enough for high sparsities beside the 50 outputs, which stay.
_WIDE_SHAPES = Task(
    Setting("shapenet"),
    Setting(
        "small-shapenet", ("network.arguments={width: 16, levels: 3}", "pruning.min_width=1", "training.steps=200")
    ),
    count=4,
)
_DEEP_SHAPES = Task(Setting("shapenet-23"), Setting("small-shapenet", _DEEP), count=4)
# A plan fits where the hidden widths agree.
_SAME_WIDTHS = ("network.name=unet3d-23", "network.arguments={width: 32}", _budget(0.8))

_ALL = (
    Study(
        name="hippocampus",
        title="Hippocampus: pruned networks at a twentieth of the multiply-adds",
        question="How well does a 3D U-Net segment the hippocampus when it keeps 5% of its multiply-adds, by each way "
        "to choose its channels, beside plain narrower networks?",
        tasks={"": _HIPPOCAMPUS},
        variants=(
            Variant("full", _FULL),
            *(
                _at(method, 5)
                for method in ("random", "layerwise", "weighted", "ranp-m", "ranp-f", "uniform", "constant")
            ),
            *(_at(method, percent) for method in BEST_TWO for percent in (10, 25)),
        ),
    ),
    Study(
        name="longer",
        title="Hippocampus: trained twice as long",
        question="Do pruned networks catch up with the full one when all are trained for twice as many steps?",
        tasks={"": _HIPPOCAMPUS},
        variants=tuple(
            variant
            for once in (Variant("full", _FULL), *(_at(method, 5) for method in BEST_TWO))
            for variant in (once, _twice(once))
        ),
    ),
    Study(
        name="small-size",
        title="Pruned at a small size, trained at a large one",
        question="Is a plan that was made at a smaller spatial size as good as one made at the size of training?",
        tasks={"": _SHAPES},
        variants=(
            Variant("full", _FULL),
            Variant("pruned-at-full-size", _RANP_F),
            Variant(
                "pruned-at-half-size",
                (*_RANP_F, "pruning.data={size: 32}"),
                small=(*_RANP_F, "pruning.data={size: 12}"),
            ),
            Variant(
                "pruned-at-quarter-size",
                (*_RANP_F, "pruning.data={size: 16}"),
                small=(*_RANP_F, "pruning.data={size: 6}"),
            ),
        ),
        pictures=("curves", "layers"),
    ),
    Study(
        name="transfer",
        title="Pruned on one data set, trained on another",
        question="Is a plan made on another data set, with other input channels and classes, as good as one's own?",
        tasks={
            "shapenet": Task(Setting("shapenet", _SAME_WIDTHS), _WIDE_SHAPES.small, count=4),
            "brats18": Task(Setting("brats18", _SAME_WIDTHS), Setting("small-brats18"), count=12),
        },
        variants=(
            Variant("shapenet-full", _FULL, task="shapenet"),
            Variant("shapenet-ranp-f", _RANP_F, task="shapenet"),
            Variant("brats18-full", _FULL, task="brats18"),
            Variant("brats18-ranp-f", _RANP_F, task="brats18"),
            Variant("shapenet-by-plan-of-brats18", _RANP_F, task="shapenet", plan_of="brats18-ranp-f"),
            Variant("brats18-by-plan-of-shapenet", _RANP_F, task="brats18", plan_of="shapenet-ranp-f"),
        ),
        pictures=("curves", "layers"),
    ),
    Study(
        name="deep",
        title="The 23-layer network at 80% sparsity",
        question="Can the 23-layer U-Net be trained on one device without 80% of its neurons, and how good is it?",
        tasks={"": _DEEP_SHAPES},
        variants=(
            Variant("full", _FULL),
            Variant("ranp-f-80", (*_RANP_F, _budget(0.8))),
            Variant(
                "full-15-layers",
                (*_FULL, "network.name=unet3d"),
                small=(*_FULL, "network={name: unet3d, arguments: {width: 4}}"),
            ),
        ),
    ),
    Study(
        name="batch",
        title="A larger batch in the same memory",
        question="How many samples can a batch of the pruned network have in the memory of the full one's?",
        tasks={
            "": Task(
                Setting("shapenet-23", ("training.batch=1",)),
                # Few classes: their outputs take as much memory in the pruned network as in the full one.
                Setting("small-decathlon", (*_DEEP[:2], "data.size=[32, 32, 32]", "pruning.min_width=1")),
                count=4,
            )
        },
        variants=(Variant("full", _FULL), Variant("ranp-f-80", (*_RANP_F, _budget(0.8)))),
        pictures=("batches",),
        trains=False,
        batches=True,
        seeds=1,
    ),
    Study(
        name="initialization",
        title="Orthogonal and Glorot initialization",
        question="How do the weights to score with change importance, and what is kept, layer by layer?",
        tasks={"": _WIDE_SHAPES},
        variants=tuple(
            Variant(f"{method}-{weights}", (*changes, _budget(0.78)), small=(*changes, _budget(0.6)))
            for method in ("vanilla", "ranp-f")
            for weights in ("glorot", "orthogonal")
            for changes in [_drawn(method, weights)]
        ),
        pictures=("layers",),
        trains=False,
    ),
    Study(
        name="sweep",
        title="Accuracy and resources over sparsities",
        question="What do accuracy and resources become as more neurons are removed, with and without reweighting?",
        tasks={"": _WIDE_SHAPES},
        variants=(Variant("full", _FULL), *_sparse(("ranp-f", "weighted", "vanilla"))),
        pictures=("sweep",),
    ),
    Study(
        name="2d",
        title="A 2D network",
        question="Does the same hold for a 2D U-Net, which segments the hippocampus plane by plane?",
        tasks={"": Task(Setting("hippocampus-2d"), Setting("small-decathlon-2d"), count=20)},
        variants=(Variant("full", _FULL), _at("ranp-f", 25), _at("uniform", 25)),
    ),
)

STUDIES = {study.name: study for study in _ALL}
