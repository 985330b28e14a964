"""Every module that registers kinds of steps; the order decides which kind a number features."""

from helpers.random_networks import (
    _ends,
    activations,
    attention,
    channels,
    convolutions,
    joins,
    modes,
    norms,
    positions,
    recurrent,
    weights,
)

__all__ = [
    "_ends",
    "activations",
    "attention",
    "channels",
    "convolutions",
    "joins",
    "modes",
    "norms",
    "positions",
    "recurrent",
    "weights",
]
