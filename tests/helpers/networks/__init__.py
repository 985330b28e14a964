"""Small networks, one for each way in which channels are tied, with their groups derived by hand.

Widths differ wherever they may, so that a group cannot be mistaken for another, and spatial sizes are odd.
"""

from helpers.networks import (
    attention,
    chains,
    convolutions,
    joins,
    limits,
    positions,
    sharing,
    stored_sizes,
    views,
    writes,
)
from helpers.networks._case import CASES, Case, Net, image

__all__ = [
    "CASES",
    "Case",
    "Net",
    "attention",
    "chains",
    "convolutions",
    "image",
    "joins",
    "limits",
    "positions",
    "sharing",
    "stored_sizes",
    "views",
    "writes",
]
