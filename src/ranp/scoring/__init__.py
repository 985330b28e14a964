"""Scoring neurons by their effect on the loss and by what they cost."""

from ranp.criteria import CRITERIA, Criterion, Importance, Reduction, normalize_layer_means, reweight_by_resource
from ranp.scoring._score import Step, score

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
