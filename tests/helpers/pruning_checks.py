"""Everything that pruning promises, checked for one network by independent means."""

import contextlib
import random
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import ranp
from helpers.masking import Run, kept_part, largest_gap, masked_run, pruned_run, repeatable, restored
from helpers.oracles import (
    assert_attributes_fit,
    counted_macs,
    counted_params,
    random_scores,
    run,
)
from helpers.random_networks._weights import loss, tensors_of
from helpers.unchanged import state_of
from ranp.allocation import WidthGrid
from ranp.costs import Cost
from ranp.criteria import CRITERIA
from ranp.errors import RanpError, VerificationError
from ranp.graph import ChannelGraph
from ranp.plan import Plan
from ranp.pruning import require_channels

T = TypeVar("T")

TOLERANCE = 1e-7
# Errors of these steps refuse a network; all others have to succeed once a network has been traced.
MAY_REFUSE = ("trace", "score")


@dataclass(frozen=True)
class Failure:
    """A promise that is not kept.

    Attributes:
        check: Which.
        reason: The message without numbers and names, by which failures are counted.
        detail: The message, and where it came from.
    """

    check: str
    reason: str
    detail: str


@dataclass
class Outcome:
    """What became of a network.

    Attributes:
        refused: Why ranp cannot prune it; empty if it can.
        failures: Promises that are not kept.
        verified: The status of every verification.
        prunable: Share of multiply-adds in layers with a channel that can be removed.
        unprunable: Operators that keep channels from being removed, besides the outputs.
        notes: Options that were refused, where the network was not.
    """

    refused: str = ""
    failures: list[Failure] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    prunable: float = 0.0
    unprunable: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def status(self) -> Literal["pruned", "refused", "failed"]:
        return "failed" if self.failures else "refused" if self.refused else "pruned"


class _EndError(Exception):
    """There is nothing more to check."""


def check_network(model: nn.Module, inputs: Any, seed: int) -> Outcome:
    """Prune a model in several ways, and check all that is promised.

    Args:
        model: Any module, in float64; its weights should be random numbers.
        inputs: A tensor, a tuple or a dict.
        seed: Of scores, budgets and settings.
    """
    checks = _Checks(model, inputs, random.Random(seed))
    with warnings.catch_warnings(), contextlib.suppress(_EndError):
        warnings.simplefilter("ignore")
        checks.run()
    return checks.outcome


def _reason(error: BaseException) -> str:
    """A message without what differs from one network to the next."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    text = re.sub(r"no channel that can be removed \(.*", "no channel that can be removed", text)[:200]
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text)
    text = re.sub(r"\b(self|stem|layer|conv|norm|linear|x|t|weight|act)\w*\d\w*(\.\w+)*", "_", text)
    text = re.sub(r"[-+]?\d[\d.e+-]*", "N", text)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/ranp/" in f.filename]
    return f"{text} in {Path(frames[-1].filename).name}:{frames[-1].name}" if frames else text


@dataclass
class _Checks:
    """The checks of one network."""

    model: nn.Module
    inputs: Any
    rng: random.Random
    outcome: Outcome = field(default_factory=Outcome)
    fired: list[int] = field(default_factory=list)
    counted: list[nn.Module] = field(default_factory=list)

    def run(self) -> None:
        """All checks; those that depend on a step that fails are left out."""
        model, inputs = self.model, self.inputs
        self._prepare()
        before, given = state_of(model), [tensor.clone() for tensor in tensors_of(inputs)]
        graph = self._do("trace", lambda: _traced(model, inputs), ends=True)
        self._describe(graph)
        plan = self._plan(graph, self.rng.choice((0.1, 0.3, 0.6, 0.9)))
        small = self._do("apply", lambda: ranp.apply(model, plan), ends=True)
        verification = self._do("verify", lambda: ranp.verify(model, plan, inputs))
        self._unchanged(before, given, "trace, apply and verify")
        if self.fired:
            self._fail("hooks", f"the caller's forward hooks ran {len(self.fired)} times")
        if verification:
            self.outcome.verified.append(verification.status)
        if not self._compare(model, plan, small):
            return
        for extra in (self._stored, self._narrowest, self._twice, self._scored):
            if self.rng.random() < 0.5:
                extra(graph, plan, small)
        self._unchanged(before, given, "prune")

    def _describe(self, graph: ChannelGraph) -> None:
        total = sum(layer.macs for layer in graph.layers) or 1
        self.outcome.prunable = sum(layer.macs for layer in graph.layers if layer.prunable) / total
        self.outcome.unprunable = sorted({entry.operator for entry in graph.unprunable} - {"output"})

    def _prepare(self) -> None:
        """Modes, gradients and hooks that have to be as they were afterwards."""
        self.model.train(self.rng.random() < 0.5)
        modules = list(self.model.modules())
        self.rng.choice(modules).train(False)
        self.rng.choice(modules).register_forward_hook(lambda *_: self.fired.append(1))
        parameters = list(self.model.parameters())
        if parameters:
            chosen = self.rng.choice(parameters)
            chosen.grad = torch.ones_like(chosen)

    def _do(self, step: str, act: Callable[[], T], *, ends: bool = False) -> T | None:
        """Something that ranp does: errors are failures, except where it may refuse the network."""
        try:
            return act()
        except Exception as error:
            if isinstance(error, RanpError) and not isinstance(error, VerificationError) and step in MAY_REFUSE:
                self.outcome.refused = f"{step}: {_reason(error)}"
                raise _EndError from error
            known = step if isinstance(error, RanpError) else f"crash in {step}"
            detail = "".join(traceback.format_exception(error))
            self.outcome.failures.append(Failure(known, _reason(error), detail))
            if ends:
                raise _EndError from error
        return None

    def _fail(self, check: str, message: str) -> None:
        self.outcome.failures.append(Failure(check, "", message))

    # -- plans -------------------------------------------------------------------------------------------------------

    def _plan(self, graph: ChannelGraph, fraction: float) -> Plan:
        """A plan for random scores, a fraction of the way from the narrowest network to the full one."""
        min_width, round_to = self.rng.choice((1, 1, 1, 2, 3)), self.rng.choice((1, 1, 1, 2, 4))
        limit, field_name = self.rng.choice(
            (("macs", "macs"), ("params", "params"), ("activations", "activation_bytes"))
        )
        narrow = graph.cost(WidthGrid(graph, min_width, round_to).narrowest)
        full = getattr(graph.cost(), field_name) or 1
        least = getattr(narrow, field_name) / full
        amount = min(1.0, least + fraction * (1 - least) + 1e-9)
        scores, budget = random_scores(graph, self.rng.randrange(1000)), ranp.Budget(**{limit: amount})
        found = self._do(
            "allocate",
            lambda: ranp.allocate(graph, scores, budget, min_width=min_width, round_to=round_to),
            ends=True,
        )
        if getattr(found.cost, field_name) > amount * full * (1 + 1e-9):
            self._fail("budget", f"{found.cost} of {found.full_cost} exceeds {budget}")
        for group in graph.groups:
            if len(found.keep[group.name]) < min(min_width, group.width):
                self._fail("min_width", f"{group.name} keeps {len(found.keep[group.name])} of {group.width}")
        return found

    def _narrowest(self, graph: ChannelGraph, plan: Plan, small: nn.Module) -> None:
        narrow = self._plan(graph, 0.0)
        self._compare(self.model, narrow, self._do("apply", lambda: ranp.apply(self.model, narrow), ends=True))

    def _twice(self, graph: ChannelGraph, plan: Plan, small: nn.Module) -> None:
        """The pruned model can be pruned again."""
        try:
            graph = self._do("trace", lambda: _traced(small, self.inputs))
        except _EndError:
            # Fewer channels are left, which may all be needed.
            self.outcome.refused = ""
            return
        if graph:
            plan = self._plan(graph, 0.3)
            smaller = self._do("apply", lambda: ranp.apply(small, plan), ends=True)
            self._compare(small, plan, smaller, ", a second time")

    def _scored(self, graph: ChannelGraph, plan: Plan, small: nn.Module) -> None:
        """The whole pipeline, by a criterion that may look at data."""
        criterion, importance = (
            self.rng.choice([name for name, known in CRITERIA.items() if not known.needs_step_time]),
            self.rng.choice(("parameter", "neuron")),
        )
        try:
            self._pruned(graph, criterion, importance)
        except _EndError:
            if importance == "parameter" or not self.outcome.refused:
                raise
            # Importance of neurons is measured only where a layer uses its weight as it is.
            self.outcome.notes.append(self.outcome.refused)
            self.outcome.refused = ""
            self._pruned(graph, criterion, "parameter")

    def _pruned(self, graph: ChannelGraph, criterion: str, importance: str) -> None:
        batches = [(self.inputs, None)] * self.rng.choice((1, 2))
        least = graph.cost(WidthGrid(graph).narrowest).macs / max(1, graph.cost().macs)
        budget = ranp.Budget(macs=min(1.0, least + 0.4 * (1 - least) + 1e-9))
        options = {"criterion": criterion, "importance": importance}
        scores = self._do("score", lambda: ranp.score(self.model, graph, batches, loss, **options))
        if scores is None:
            return
        plan = self._do("allocate", lambda: ranp.allocate(graph, scores, budget))
        result = self._do("prune", lambda: ranp.prune(self.model, self.inputs, batches, loss, budget=budget, **options))
        if plan and result:
            self.outcome.verified.append(result.verification.status)
            if result.plan.keep != plan.keep:
                self._fail("prune", "it decides otherwise than score and allocate")
            self._compare(self.model, result.plan, result.model)

    # -- oracles -----------------------------------------------------------------------------------------------------

    def _compare(self, model: nn.Module, plan: Plan, small: nn.Module, when: str = "") -> bool:
        """Compare a pruned model with the full one; whether it runs."""
        for training in (False, True):
            mode = ("training" if training else "eval") + when
            try:
                pruned = pruned_run(small, self.inputs, training=training)
            except Exception as error:
                detail = "".join(traceback.format_exception(error))
                self.outcome.failures.append(Failure(f"runs in {mode}", _reason(error), detail))
                return False
            try:
                self._masked(model, plan, pruned, training, mode)
            except Exception as error:
                detail = "".join(traceback.format_exception(error))
                self.outcome.failures.append(Failure(f"oracle in {mode}", _reason(error), detail))
        if model not in self.counted:
            self._costs(model, plan.full_cost, "full network" + when)
            self.counted.append(model)
        self._costs(small, plan.cost, "pruned network" + when)
        self._forms(model, small)
        return True

    def _masked(self, model: nn.Module, plan: Plan, pruned: Run, training: bool, mode: str) -> None:
        """Outputs and buffers are those of the full network without the removed channels."""
        masked = masked_run(model, plan, self.inputs, pruned, training=training)
        gap = largest_gap(masked.outputs, pruned.outputs)
        if gap > TOLERANCE:
            self._fail(f"masked = pruned in {mode}", f"outputs differ by {gap:.3g}")
        for name, buffer in pruned.buffers.items():
            gap = largest_gap([kept_part(masked.buffers[name], name, plan)], [buffer])
            if gap > TOLERANCE:
                self._fail(f"buffers in {mode}", f"{name} differs by {gap:.3g}")

    def _costs(self, model: nn.Module, cost: Cost, which: str) -> None:
        """Multiply-adds and parameters as counted."""
        with restored(model), repeatable(), sdpa_kernel(SDPBackend.MATH):
            macs = {counted_macs(model.eval(), self.inputs, einsum_as_product=how) for how in (False, True)}
        if cost.macs not in macs:
            self._fail(f"macs of the {which}", f"planned {cost.macs}, counted {sorted(macs)}")
        if cost.params != counted_params(model):
            self._fail(f"params of the {which}", f"{cost.params}, not {counted_params(model)}")

    def _forms(self, model: nn.Module, small: nn.Module) -> None:
        """Sizes that modules store fit their weights, which keep their order in memory."""
        with restored(small), repeatable():
            run(small.eval(), self.inputs)  # Hooks compute some of the weights.
            try:
                assert_attributes_fit(small)
            except AssertionError as error:
                self._fail("attributes", str(error).splitlines()[0])
        formats, cut = {4: torch.channels_last, 5: torch.channels_last_3d}, dict(small.named_parameters())
        for name, full in model.named_parameters():
            order = formats.get(full.ndim)
            kept = order and name in cut and not full.is_contiguous() and full.is_contiguous(memory_format=order)
            if kept and not cut[name].is_contiguous(memory_format=order):
                self._fail("memory format", f"{name} is no longer {order}")
                return

    def _stored(self, graph: ChannelGraph, plan: Plan, small: nn.Module) -> None:
        """What is loaded computes the same."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "artifact")
            self._do("save", lambda: ranp.save(small, plan, path), ends=True)
            loaded = self._do("load", lambda: ranp.load(path, self.model))
        outputs = []
        for network in (small, loaded) if loaded else ():
            with restored(network), repeatable():
                outputs.append(run(network.eval(), self.inputs))
        if outputs and largest_gap(*outputs) > 0:
            self._fail("load", "the loaded network returns something else")

    def _unchanged(self, before: dict[str, Any], given: list[Tensor], when: str) -> None:
        after = state_of(self.model)
        for name in before:
            if after[name] != before[name]:
                self._fail(f"caller's {name} after {when}", f"{before[name]!r:.200} became {after[name]!r:.200}")
                before[name] = after[name]
        if not all(torch.equal(a, b) for a, b in zip(given, tensors_of(self.inputs), strict=True)):
            self._fail(f"caller's inputs after {when}", "they changed")


def _traced(model: nn.Module, inputs: Any) -> ChannelGraph:
    graph = ranp.trace(model, inputs)
    require_channels(graph)
    return graph
