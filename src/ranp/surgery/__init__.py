"""Acting on a plan: a new, smaller model, and the proof that it computes what it should."""

from ranp.surgery._apply import apply
from ranp.surgery._initialise import Weights
from ranp.surgery._narrowed import narrowed
from ranp.surgery._verify import Verification, verify

__all__ = ["Verification", "Weights", "apply", "narrowed", "verify"]
