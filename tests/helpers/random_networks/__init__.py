"""Random networks: drawn by an integer, described by plain data, printed as Python code, and made smaller.

A network is a list of steps. A step has a kind, which is a function that writes a few lines of code, the results of
earlier steps that it takes, and the choices that the function made.
"""

import contextlib
import warnings
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from helpers.oracles import in_double
from helpers.random_networks import _all  # noqa: F401 - registers all kinds of steps
from helpers.random_networks._assemble import assemble
from helpers.random_networks._draw import drawn
from helpers.random_networks._shrink import shrunk
from helpers.random_networks._weights import randomized, require_trainable
from helpers.random_networks._writer import KINDS, Step, UnfitError, Writer

__all__ = ["KINDS", "Network", "Spec", "Step", "UnfitError", "build", "draw", "randomized", "shrunk"]

Spec: TypeAlias = tuple[Step, ...]
"""All steps of a network; the first makes the inputs and the last the outputs."""


@dataclass(frozen=True)
class Network:
    """A model in float64, inputs for it, and the code of both."""

    spec: Spec
    model: nn.Module
    inputs: Any
    code: str


def draw(seed: int) -> Network:
    """The network of that number."""
    for writer in drawn(seed):
        with contextlib.suppress(UnfitError):
            return _network(writer)
    raise AssertionError("there is no end of networks")


def build(spec: Spec) -> Network:
    """The network that a specification stands for; what it leaves open is the first option.

    Raises:
        UnfitError: A step cannot take the values that it is given, or the network cannot be trained.
    """
    writer = Writer()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in spec:
            writer.add(step)
    return _network(writer)


def _network(writer: Writer) -> Network:
    code = assemble(writer)
    scope: dict[str, Any] = {"__name__": "random_network"}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        exec(code, scope)
        model, inputs = randomized(scope["build"]()), in_double(scope["inputs"]())
        try:
            require_trainable(model, inputs)
        except Exception as error:
            raise UnfitError(f"{type(error).__name__}: {error}") from error
    return Network(tuple(writer.steps), model, inputs, code)
