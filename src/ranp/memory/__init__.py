"""The peak memory of training steps, predicted without running them."""

from ranp.costs.memory import Block, MemoryFormula, MemoryPrediction, Moment
from ranp.memory._predict import MemoryPredictor, Size, predict_memory
from ranp.memory._search import MARGIN, largest_batch, largest_size, size_multiple

__all__ = [
    "MARGIN",
    "Block",
    "MemoryFormula",
    "MemoryPrediction",
    "MemoryPredictor",
    "Moment",
    "Size",
    "largest_batch",
    "largest_size",
    "predict_memory",
    "size_multiple",
]
