"""Recipes: typed descriptions of an experiment, read from YAML; needs the extra `train`."""

from ranp.experiments.recipes._fields import METHODS, Limits, Network, Pruning, Recipe, Training
from ranp.experiments.recipes._networks import build_network
from ranp.experiments.recipes._read import parse_recipe, read_recipe

__all__ = [
    "METHODS",
    "Limits",
    "Network",
    "Pruning",
    "Recipe",
    "Training",
    "build_network",
    "parse_recipe",
    "read_recipe",
]
