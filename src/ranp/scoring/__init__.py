"""Scoring neurons by their effect on the loss and by what they cost."""

from typing import TYPE_CHECKING

from ranp.costs.training import Step
from ranp.criteria import CRITERIA, Criterion, Importance, Reduction, normalize_layer_means, reweight_by_resource
from ranp.deprecation import renamed_names
from ranp.scoring._score import score

__all__ = [
    "CRITERIA",
    "Criterion",
    "Importance",
    "Reduction",
    "Step",
    "normalize_layer_means",
    "reweight_by_resource",
    "score",
]


if not TYPE_CHECKING:
    __getattr__ = renamed_names(__name__, {"equalise": "normalize_layer_means", "favour_cheap": "reweight_by_resource"})
