"""Scoring neurons by their effect on the loss and by what they cost."""

from ranp.scoring._criteria import CRITERIA, Criterion, score
from ranp.scoring._reweighting import equalise, favour_cheap

__all__ = ["CRITERIA", "Criterion", "equalise", "favour_cheap", "score"]
