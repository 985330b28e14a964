"""The fields of a recipe, each with what it means and what it may be."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, model_validator

from ranp.budget import Budget
from ranp.criteria import Importance
from ranp.experiments.data import DataSet, data_set
from ranp.surgery import Weights

Method: TypeAlias = Literal[
    "none",
    "uniform",
    "constant",
    "random",
    "layerwise",
    "vanilla",
    "weighted",
    "ranp-f",
    "ranp-m",
    "snip",
]
METHODS: tuple[Method, ...] = get_args(Method)


class _Part(BaseModel):
    """Unprunable, and without room for fields that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Network(_Part):
    """The network, before pruning."""

    name: str = Field(
        description="A built-in network (unet3d, unet3d-23, unet2d, mobilenetv2, i3d), or package.module:factory, "
        "which is called with the numbers of input channels and of classes, and with the arguments.",
    )
    arguments: dict[str, Any] = Field(default={}, description="Further keyword arguments, such as width.")
    weights: Literal["glorot", "orthogonal"] | None = Field(
        default=None, description="How the weights to score with are drawn; as the network does it if not given."
    )


class Limits(_Part):
    """What the pruned network may cost; limits given together must all hold."""

    macs: float | None = Field(default=None, gt=0, le=1, description="Fraction of the multiply-adds to keep.")
    params: float | None = Field(default=None, gt=0, le=1, description="Fraction of the parameters to keep.")
    activations: float | None = Field(default=None, gt=0, le=1, description="Fraction of the activation bytes to keep.")
    sparsity: float | None = Field(default=None, ge=0, lt=1, description="Fraction of the neurons to remove.")

    @model_validator(mode="after")
    def _some_limit(self) -> "Limits":
        if all(value is None for value in self.model_dump().values()):
            raise ValueError("at least one limit, such as macs: 0.05")
        return self

    def budget(self) -> Budget:
        """The same as `ranp.prune` takes it."""
        return Budget(**self.model_dump())


class Pruning(_Part):
    """How the network is made smaller before training."""

    method: Method = Field(
        description="A criterion of ranp.prune; or uniform (all widths smaller by one factor), constant (one width "
        "everywhere), or none (the full network).",
    )
    budget: Limits | None = Field(default=None, description="What the pruned network may cost; not for none.")
    importance: Importance = Field(default="parameter", description="Reading of importance: parameter or neuron.")
    resource_weight: float | None = Field(
        default=None, ge=0, description="Weight of the resource term of ranp-f and ranp-m; 11 if not given."
    )
    batches: PositiveInt | Literal["all", "stable"] = Field(
        default="all",
        description="Batches of the training data to score with; all of them; or stable: as many as it takes.",
    )
    stability: float = Field(
        default=0.99,
        gt=0,
        le=1,
        description="Where batches is stable: rank correlation of the scores over n batches and over the first half of "
        "them, for n = 2, 4, 8, ..., from which on scoring stops.",
    )
    batch: PositiveInt | None = Field(default=None, description="Samples a batch while scoring; as in training if not.")
    data: dict[str, Any] = Field(
        default={},
        description="Settings of the data set that differ while scoring, such as a smaller size; the budget is then "
        "counted at that size.",
    )
    min_width: PositiveInt = Field(default=1, description="Channels that every group keeps at least.")
    round_to: PositiveInt = Field(default=1, description="Round widths down to multiples of this.")
    weights: Weights = Field(
        default="glorot", description="Initial weights: drawn anew (glorot, orthogonal), or those that survive (keep)."
    )
    plan: str | None = Field(
        default=None,
        description="Folder of a pruned network (such as a run's `plan`) whose plan to take over instead of scoring; "
        "its input channels and classes may differ.",
    )

    @model_validator(mode="after")
    def _budget_where_needed(self) -> "Pruning":
        if self.method != "none" and self.plan is None and self.budget is None:
            raise ValueError("a budget, such as budget: {macs: 0.05}, or method: none")
        return self


class Training(_Part):
    """How the network is trained after pruning."""

    loss: Literal["cross-entropy", "dice-cross-entropy"] = Field(
        default="cross-entropy", description="Cross entropy, alone or plus soft Dice of all classes but the first."
    )
    optimizer: Literal["adamw", "adam", "sgd"] = Field(default="adamw", description="Of torch; sgd has momentum 0.9.")
    rate: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay of the optimizer.")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        default="linear",
        description="The rate over the training: constant; half a cosine down to zero; or linear: up within the first "
        "twentieth, then straight down to zero.",
    )
    batch: PositiveInt = Field(description="Samples in a batch, on every device.")
    steps: PositiveInt | None = Field(default=None, description="Steps to train for; this or epochs.")
    epochs: PositiveInt | None = Field(default=None, description="Passes over the training data; this or steps.")
    validate_every: PositiveInt | None = Field(
        default=None, description="Steps between validations; an epoch if not given."
    )
    checkpoint_every: PositiveInt = Field(
        default=100, description="Steps between checkpoints to resume from; every validation makes one, too."
    )
    patience: PositiveInt | None = Field(
        default=None,
        description="Validations without a better primary_metric metric to stop after; none if not given.",
    )
    precision: Literal["auto", "32", "bf16"] = Field(
        default="auto", description="32 bits; mixed with bfloat16; or auto: bf16 where the GPU has it."
    )
    channels_last: bool = Field(
        default=False,
        description="Keep channels last in memory: on many devices faster convolutions, the same but for rounding.",
    )
    workers: int = Field(default=0, ge=0, description="Processes that load data; 0 loads in the training process.")

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("either steps or epochs")
        return self


class Recipe(_Part):
    """An experiment: data, network, pruning and training."""

    about: str = Field(description="What it shows, the metric to expect, the hardware and the duration.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Of weights, scoring, batches and augmentation.")
    data: dict[str, Any] = Field(
        description="Name of the data set (brats18, decathlon, shapenet, ucf101), and its settings beside it."
    )
    network: Network = Field(description="The network, before pruning.")
    pruning: Pruning = Field(description="How it is made smaller before training.")
    training: Training = Field(description="How it is trained after pruning.")

    def data_set(self, changes: Mapping[str, Any] | None = None) -> DataSet[Any]:
        """The data set with its settings.

        Args:
            changes: Settings that differ, as those of `pruning.data` do.

        Raises:
            InputError: An unknown data set.
            pydantic.ValidationError: A setting that is unknown or of the wrong kind.
        """
        settings = {**self.data, **(changes or {})}
        kind = data_set(str(settings.pop("name", "")))
        made: DataSet[Any] = TypeAdapter(kind).validate_python(settings)
        return made
