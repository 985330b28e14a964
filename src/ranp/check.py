"""What a user runs first: can this network be pruned, what stays whole, and is the result correct?"""

import importlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import nn

import ranp
from ranp._pipeline import require_channels
from ranp.errors import InputError, RanpError, VerificationError, nearest
from ranp.graph import ChannelGraph, Frozen
from ranp.models import BUILT_IN
from ranp.plan import Plan
from ranp.report import Report, make_report


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        model: How it was named.
        macs_full: Multiply-adds of one forward pass.
        macs_pruned: The same after pruning.
        verified: `exact`, `structural` or `failed`; see `ranp.verify`.
        frozen: What stays whole, and why.
        seconds: From tracing to verification.
        error: Why it failed; empty if it did not.
        report: Tables for people.
    """

    model: str
    macs_full: int
    macs_pruned: int
    verified: Literal["exact", "structural", "failed"]
    frozen: tuple[Frozen, ...]
    seconds: float
    error: str
    report: Report

    def to_json(self) -> dict[str, Any]:
        """Everything but the tables."""
        data = {name: value for name, value in vars(self).items() if name not in ("report", "frozen")}
        return data | {"frozen": [asdict(entry) for entry in self.frozen]}


def check(name: str, shapes: Sequence[tuple[int, ...]], budget: ranp.Budget, *, seed: int = 0) -> Check:
    """Trace a network, prune it at random to a budget, and verify the result; no data and no loss are needed.

    Args:
        name: A built-in network, or `package.module:factory`, called without arguments.
        shapes: Shapes of the positional inputs; for a built-in network its usual one if there are none.
        budget: What the pruned network may cost.
        seed: Seed of the random scores.

    Raises:
        RanpError: An unknown name, a factory that fails, a model that cannot be traced or has nothing to prune, or a
            budget that cannot be met.

    Example:
        >>> found = check("unet3d", [(1, 1, 16, 16, 16)], ranp.Budget(macs=0.25))
        >>> found.verified, found.macs_pruned <= 0.25 * found.macs_full, [entry.operator for entry in found.frozen]
        ('exact', True, ['output'])
    """
    model, inputs = build(name, shapes)
    begin = time.perf_counter()
    graph = ranp.trace(model, inputs)
    require_channels(graph)
    plan = _plan(model, graph, budget, seed)
    verified: Literal["exact", "structural", "failed"] = "failed"
    error, note = "", ""
    try:
        verification = ranp.verify(model, plan, inputs)
        verified, note = verification.status, verification.note
    except VerificationError as failure:
        error = str(failure)
    seconds = time.perf_counter() - begin
    report = make_report(graph, plan, verification=verified, note=note, seconds={"check": seconds})
    return Check(name, plan.full_cost.macs, plan.cost.macs, verified, graph.frozen, seconds, error, report)


def _plan(model: nn.Module, graph: ChannelGraph, budget: ranp.Budget, seed: int) -> Plan:
    scores = ranp.score(model, graph, [], criterion="random", seed=seed)
    return ranp.allocate(graph, scores, budget)


def build(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The network of that name, and inputs for it.

    Raises:
        InputError: An unknown name, a factory that fails or returns something else, or no shapes where they are needed.
    """
    if ":" in name:
        if not shapes:
            raise InputError("--input", got="nothing", expected="the shape of every input", hint="--input 1,1,64,64,64")
        return _from_factory(name), tuple(torch.zeros(shape) for shape in shapes)
    if name not in BUILT_IN:
        hint = f"{nearest(name, BUILT_IN)}; for your own network give package.module:factory"
        raise InputError("model", got=repr(name), expected="a built-in network or package.module:factory", hint=hint)
    built = BUILT_IN[name]
    return built.build(), tuple(torch.zeros(shape) for shape in shapes or [built.shape])


def _from_factory(name: str) -> nn.Module:
    path, _, attribute = name.partition(":")
    try:
        model = getattr(importlib.import_module(path), attribute)()
    except RanpError:
        raise
    except Exception as error:
        raise InputError(
            f"model {name}",
            got=f"{type(error).__name__}: {error}",
            expected="a function or class in a module that can be imported, called without arguments",
            hint="wrap a model that needs arguments in a function without any",
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model {name}", got=type(model).__name__, expected="a torch.nn.Module")
    return model


def parse_shape(text: str) -> tuple[int, ...]:
    """A shape from the command line.

    Example:
        >>> parse_shape("1,1,64,64,64")
        (1, 1, 64, 64, 64)
    """
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise InputError("--input", got=repr(text), expected="positive sizes with commas", hint="--input 1,1,64,64,64")
    return tuple(int(size) for size in sizes)


def parse_budget(texts: Sequence[str]) -> ranp.Budget:
    """A budget from the command line, in fractions or percent.

    Example:
        >>> parse_budget(["macs=5%", "params=0.1"])
        Budget(macs=0.05, params=0.1, activations=None, sparsity=None)
    """
    limits = {}
    known = [entry.name for entry in fields(ranp.Budget)]
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known:
            raise InputError("--budget", got=repr(text), expected="name=fraction", hint=nearest(name, known))
        try:
            limits[name] = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError as error:
            raise InputError(
                "--budget", got=repr(text), expected="a number", hint=f"{name}=0.05 or {name}=5%"
            ) from error
    return ranp.Budget(**limits)
