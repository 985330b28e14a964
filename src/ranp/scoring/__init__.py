"""Scoring neurons by their effect on the loss and by what they cost."""

from ranp.scoring._criteria import CRITERIA, Criterion, score
from ranp.scoring._reweighting import normalize_layer_means, reweight_by_resource

__all__ = ["CRITERIA", "Criterion", "normalize_layer_means", "reweight_by_resource", "score"]
