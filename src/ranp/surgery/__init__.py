"""Acting on a plan: a new, smaller model, and the proof that it computes what it should."""

from ranp.surgery._apply import apply
from ranp.surgery._initialize import Weights
from ranp.surgery._resize import resized
from ranp.surgery._verify import Verification, verify

__all__ = ["Verification", "Weights", "apply", "resized", "verify"]
