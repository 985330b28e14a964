"""Tracing: the channels of a model, which of them depend on each other, and what they cost.

Data flows in one direction: capture the operators of a forward pass, propagate channel labels through them by rules,
build a graph, and validate it by running the model at reduced widths.
"""

from ranp.tracing._capture import Call, forward_error
from ranp.tracing._meta_model import MetaModel, Observer
from ranp.tracing._propagate import Rule, Tracer
from ranp.tracing._trace import Operator, operators, output_shapes, trace
from ranp.tracing.rules import RULES
from ranp.tracing.rules.elementwise import pointwise

__all__ = [
    "RULES",
    "Call",
    "MetaModel",
    "Observer",
    "Operator",
    "Rule",
    "Tracer",
    "forward_error",
    "operators",
    "output_shapes",
    "pointwise",
    "trace",
]
