"""The fields of a recipe, each with its meaning and its allowed values, and what is built from them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    PrivateAttr,
    TypeAdapter,
    field_serializer,
    field_validator,
    model_validator,
)
from torch import nn

from ranp import import_by_name
from ranp.budget import Budget
from ranp.criteria import CRITERIA, Importance
from ranp.errors import InputError
from ranp.experiments.data import DataSet, data_set
from ranp.experiments.losses import LOSSES, SCHEDULES
from ranp.models import BUILT_IN
from ranp.surgery import Weights, initialize

DataSets: TypeAlias = Mapping[str, type[DataSet[Any]]]
"""Data sets of the caller's own, by the name that a recipe gives them."""

if TYPE_CHECKING:
    Method: TypeAlias = str
    Loss: TypeAlias = str
    Schedule: TypeAlias = str
else:
    Method = Literal[("none", *CRITERIA)]
    Loss = Literal[tuple(name for name in LOSSES if name != "mse")]  # The targets of the data sets are classes.
    Schedule = Literal[tuple(SCHEDULES)]


class _Fields(BaseModel):
    """Immutable; an unknown field is an error. The docstring of a field describes it on the page of all fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class NetworkFields(_Fields):
    """The network, before pruning."""

    name: str
    """A built-in network (unet3d, unet3d-23, unet2d, mobilenetv2, i3d), or package.module:factory, which is called with
    the numbers of input channels and of classes, and with the arguments."""
    arguments: dict[str, Any] = {}
    """Further keyword arguments, such as width."""
    weights: Literal["glorot", "orthogonal"] | None = None
    """Initialization of the weights that are scored; the network's own initialization if not given."""

    def build(self, in_channels: int, classes: int, *, seed: int) -> nn.Module:
        """The full network for the channels and classes of the data, with initial weights that follow from the seed.

        Raises:
            InputError: An unknown name, a factory that fails, or arguments that do not fit.

        Example:
            >>> import torch
            >>> model = NetworkFields(name="unet3d", arguments={"width": 4}).build(1, 3, seed=0)
            >>> model(torch.zeros(2, 1, 8, 8, 8)).shape
            torch.Size([2, 3, 8, 8, 8])
        """
        classes_name = BUILT_IN[self.name].classes if self.name in BUILT_IN else "classes"
        arguments = {"in_channels": in_channels, classes_name: classes, **self.arguments}
        remedy = "the recipe's network.arguments are added to the data's channels and classes"
        model = import_by_name.build_network(self.name, arguments, seed=seed, where="network.name", remedy=remedy)
        if self.weights is not None:
            initialize(model, self.weights, seed)
        return model


class PruningFields(_Fields):
    """How the network is pruned before training."""

    method: Method
    """A criterion of ranp.prune; or uniform (all widths scaled by one factor), constant (one width everywhere), or none
    (the full network)."""
    budget: Budget | None = None
    """What the pruned network may cost; not for none."""
    importance: Importance = "parameter"
    """How importance is measured: parameter or neuron."""
    resource_weight: float | None = Field(default=None, ge=0)
    """Weight of the resource term of ranp-f, ranp-m and ranp-t; 11 if not given."""
    batches: PositiveInt | Literal["all", "stable"] = "all"
    """Number of training batches to score with; all; or stable: until the ranking of the channels no longer changes."""
    stability: float = Field(default=0.99, gt=0, le=1)
    """For stable batches: scoring stops once the rank correlation between the scores over n batches and over the first
    half of them reaches this value, for n = 2, 4, 8, ...."""
    batch: PositiveInt | None = None
    """Samples per batch while scoring; training.batch if not given."""
    data: dict[str, Any] = {}
    """Settings of the data set that differ while scoring, such as a smaller size; the budget is then counted at that
    size."""
    policy: str = "threshold"
    """How widths follow from scores and budget: threshold, balanced, or balanced with options, such as
    balanced(decoder=0.5)."""
    min_width: PositiveInt | None = None
    """Smallest number of channels that a group may keep; by default a guard against bottlenecks."""
    round_to: PositiveInt | None = None
    """Widths are multiples of this, or full widths; by default of 8, where groups are wide enough."""
    weights: Weights = "glorot"
    """Initial weights of the pruned network: new ones (glorot, orthogonal), or the kept ones of the full network
    (keep)."""
    plan: str | None = None
    """Folder of a pruned network (such as a run's `plan`) whose plan is applied instead of scoring; its input channels
    and classes may differ."""

    @field_serializer("budget")
    def _given_limits(self, budget: Budget | None) -> dict[str, float | str] | None:
        """Only the limits that are given: files of runs do not depend on which others exist."""
        return None if budget is None else dict(budget.given())

    @field_validator("budget")
    @classmethod
    def _no_custom_limits(cls, budget: Budget | None) -> Budget | None:
        if budget is not None and budget.custom:
            raise InputError("pruning.budget", "a recipe cannot limit custom resources", hint="use ranp.prune instead")
        return budget

    @model_validator(mode="after")
    def _budget_where_needed(self) -> "PruningFields":
        if self.method != "none" and self.plan is None and self.budget is None:
            raise ValueError("a budget, such as budget: {macs: 0.05}, or method: none")
        return self


class TrainingFields(_Fields):
    """How the network is trained after pruning."""

    loss: Loss = "cross-entropy"
    """Cross entropy, alone or plus soft Dice of all classes but the first."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Of torch; sgd has momentum 0.9."""
    rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of the optimizer."""
    schedule: Schedule = "linear"
    """Learning rate over the training: constant; half a cosine down to zero; or linear: up during the first twentieth,
    then linearly down to zero."""
    batch: PositiveInt
    """Samples per batch, on every device."""
    steps: PositiveInt | None = None
    """Length of the training in steps."""
    epochs: PositiveInt | None = None
    """Length in passes over the training data."""
    seconds: float | None = Field(default=None, gt=0)
    """Length in seconds of training time; validation and checkpoints do not count, and the schedule follows the
    clock."""
    validate_every: PositiveInt | None = None
    """Steps between validations; an epoch if not given."""
    validations: PositiveInt | None = None
    """Number of validations, spaced evenly over the training; replaces validate_every."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints to resume from; every validation writes one, too."""
    patience: PositiveInt | None = None
    """Stop after this many validations without an improvement of the primary metric; never if not given."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """32 bits; mixed with bfloat16; or auto: bf16 where the GPU supports it."""
    channels_last: bool = False
    """Keep channels last in memory: faster convolutions on many devices, equal results up to rounding."""
    workers: int = Field(default=0, ge=0)
    """Processes that load data; with 0 the training process loads them."""

    @model_validator(mode="after")
    def _one_length(self) -> "TrainingFields":
        if sum(length is not None for length in (self.steps, self.epochs, self.seconds)) != 1:
            raise ValueError("one of steps, epochs and seconds")
        if self.validate_every is not None and self.validations is not None:
            raise ValueError("validate_every or validations, not both")
        return self


class Recipe(_Fields):
    """An experiment: data, network, pruning and training."""

    about: str
    """What it shows, the metric to expect, the hardware and the duration."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of weights, scoring, batches and augmentation."""
    data: dict[str, Any]
    """Name of the data set (one of those below, or package.module:Class), and its settings."""
    network: NetworkFields
    """The network, before pruning."""
    pruning: PruningFields
    """How it is pruned before training."""
    training: TrainingFields
    """How it is trained after pruning."""

    _data_sets: DataSets = PrivateAttr(default_factory=dict)

    def data_set(self, changes: Mapping[str, Any] | None = None) -> DataSet[Any]:
        """The data set with its settings, some of them changed, as those of `pruning.data` do.

        Raises:
            InputError: An unknown data set.
            pydantic.ValidationError: A setting that is unknown or of the wrong kind.
        """
        settings = {**self.data, **(changes or {})}
        kind = self.data_set_type(str(settings.pop("name", "")))
        return TypeAdapter(kind).validate_python(settings)

    def data_set_type(self, name: str) -> type[DataSet[Any]]:
        """The data set of that name: of the caller's own, or one that comes with ranp."""
        return data_set(name, self._data_sets)
