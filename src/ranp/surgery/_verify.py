"""The proof: the pruned model computes what the original computes without the removed channels."""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import BaseTorchFunctionMode

from ranp.arguments import checked
from ranp.errors import VerificationError, first_line
from ranp.module_utils import (
    Inputs,
    ModelWithValues,
    all_modules,
    all_tensors,
    call_model,
    copy_model,
    preserve_rng,
    preserve_state,
    seed_rng,
    tensors_in,
)
from ranp.plan import Plan
from ranp.surgery._apply import apply
from ranp.surgery._missing import SkipMissing
from ranp.surgery._noise import ConstantRandom, noise_like, rescale_weights
from ranp.training_mode import set_mode, watch_reads

TOLERANCE = 1e-9
# Where a forward requires its own precision: enough to detect a wrong channel.
COARSE_TOLERANCE = 1e-2
_SIDES = (8, 16, 32, None)
_NORMS = "norms over channels were compared with the original's over the remaining channels"
_NOT_IN_DOUBLE = "the model does not run in float64"
_REPORT = "the model's forward does something that tracing does not understand: please report it"


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        status: `exact`: the outputs are equal in float64. `structural`: that was not possible (see `note`), and shapes,
            finiteness and gradients were checked instead.
        max_error: Largest difference of outputs, relative to the largest output; NaN if not compared.
        outputs: Shapes of the outputs that were compared.
        note: How norms over channels were compared, and what was not; empty if there is nothing to say.
        complete: Whether the outputs were compared in all modes that differ.
    """

    status: Literal["exact", "structural"]
    max_error: float
    outputs: tuple[tuple[int, ...], ...]
    note: str = ""
    complete: bool = True

    @property
    def warning(self) -> str:
        """What was not compared; empty if everything was."""
        if self.complete:
            return ""
        checked = ": the pruned model was checked for shapes, finite values and gradients"
        return self.note + (checked if self.status == "structural" else "")


@checked
def verify(model: ModelWithValues, plan: Plan, example_inputs: Inputs) -> Verification:
    """Prove that pruning a model by a plan does what the plan says, in float64.

    The model is copied twice. One copy is pruned. The other keeps its shapes, but what the plan removes from its
    parameters and buffers is missing, and every operator computes what it does without that: convolutions and matrix
    products skip missing terms, and norms take their statistics over the channels that are left. Both copies get the
    same noise as input and must return the same: in eval mode and, if the pruned model runs other operators there, in
    training mode, in which dropout and batch norm stay in eval mode, because they treat channels alike in both.

    The weights of both copies are first rescaled in the same way, so that signals reach the output: with a plain
    initialization they vanish within a few dozen layers, and any two outputs are equal. Large inputs are cut to a few
    positions per side, where the model accepts that: what happens to channels does not depend on the number of
    positions. Hooks that are functions do not run.

    Args:
        model: The full model.
        plan: A plan for it.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        VerificationError: The outputs differ, or are not finite.
        PlanError: The plan was made for another model.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            problem, hint = "the weights contain NaN or infinity", "initialize the model"
            raise VerificationError(f"verify: {name}", problem, hint=hint)
    with preserve_rng(model):
        # Some forwards require the model's own precision.
        for dtype in (torch.float64, None):
            try:
                return _Proof(model, plan, example_inputs, dtype).verified()
            except _ForwardError as error:
                failure = error
    problem = f"the forward fails on inputs of the kind of example_inputs ({failure})"
    raise VerificationError("verify", problem) from failure.__cause__


class _ForwardError(Exception):
    """The forward of the full model fails at all sizes of inputs."""


@dataclass(frozen=True)
class _Run:
    """What the full model returns without what is missing, on the smallest inputs that it accepts."""

    training: bool
    side: int | None
    outputs: list[Tensor]
    reads_mode: bool  # whether the forward reads `training`
    custom: set[str]  # operators of other packages, which do not know what is missing

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(tensor.shape) for tensor in self.outputs)

    @property
    def comparable(self) -> bool:
        """Whether nothing is missing in the outputs that operators of other packages may have left out."""
        return not self.custom or _finite(self.outputs)


class _Proof:
    """The copies of a model in one precision, and how they are compared."""

    def __init__(self, model: nn.Module, plan: Plan, example_inputs: Any, dtype: torch.dtype | None) -> None:
        self.model, self.plan, self.example_inputs, self.dtype = model, plan, example_inputs, dtype
        self.full = self._copied()
        self.small = apply(self.full, plan)
        _mark_missing(self.full, plan)
        self.double = all(p.dtype == torch.float64 for p in self.full.parameters() if p.is_floating_point())

    def _copied(self) -> nn.Module:
        def cast(tensor: Tensor) -> Tensor:
            return tensor.detach().to(self.dtype if tensor.is_floating_point() else None, copy=True)

        model = copy_model(self.model, cast)
        rescale_weights(model)
        return model

    def verified(self) -> Verification:
        """Compare the outputs of both copies in both modes."""
        run, unproven = self._run(training=False), list[str]()
        draws = ConstantRandom()
        compared = [(run, self._pruned_outputs(run, draws))]
        if run.reads_mode:
            try:
                compared += self._in_training_mode(run, draws.operators)
            except _ForwardError as failure:
                unproven.append(f"training mode was not compared, because the forward fails in it: {failure}")
        custom = sorted({name for each, _ in compared if not each.comparable for name in each.custom})
        error = math.nan if custom else max(self._error(*each) for each in compared)
        exact = self.double and not custom
        if not exact:
            self._check_structure(run)
            why = f"it is not known what {custom[0]} computes without some channels" if custom else _NOT_IN_DOUBLE
            unproven.insert(0, why)
        norms = [_NORMS] if self.plan.has_cross_channel_norm and not custom else []
        status: Literal["exact", "structural"] = "exact" if exact else "structural"
        return Verification(status, error, run.shapes, "; ".join(norms + unproven), complete=not unproven)

    def _in_training_mode(self, in_eval: _Run, operators: list[str]) -> list[tuple[_Run, list[Tensor]]]:
        """Outputs of both copies in training mode; none where the pruned model runs the same operators as in eval mode.

        It may return more outputs. Each copy runs once, because a forward in training mode may change parameters.
        """
        side = in_eval.side
        draws, found = ConstantRandom(), None
        with torch.no_grad(), suppress(Exception):  # It may need larger inputs than in eval mode.
            found = _outputs(self.small, self._inputs(side), training=True, draws=draws)
        if found is not None and draws.operators == operators and len(found) == len(in_eval.outputs):
            return []
        run = self._run(training=True)
        return [(run, self._pruned_outputs(run) if found is None or run.side != side else self._fitting(run, found))]

    def _run(self, *, training: bool) -> _Run:
        """Run the full model on the smallest inputs that it accepts."""
        for attempt, side in enumerate((*_SIDES, None)):
            if attempt == len(_SIDES):
                # Attempts that failed may have left something behind in other objects than modules.
                self.full = self._copied()
                _mark_missing(self.full, self.plan)
            skip, reads = SkipMissing(), list[bool]()
            try:
                with torch.no_grad(), skip:
                    outputs = _outputs(self.full, self._inputs(side), training=training, reads=reads)
                return _Run(training, side, outputs, bool(reads), skip.custom)
            except Exception as error:
                failure = error
        raise _ForwardError(f"{type(failure).__name__}: {first_line(failure)}") from failure

    def _inputs(self, side: int | None) -> Any:
        return noise_like(self.example_inputs, side, self.dtype)

    def _error(self, run: _Run, found: list[Tensor]) -> float:
        """The largest difference between the outputs of the two copies."""
        if not _finite(run.outputs):
            raise self._not_finite(run, found)
        return _compare(run.outputs, found, TOLERANCE if self.double else COARSE_TOLERANCE)

    def _pruned_outputs(
        self, run: _Run, draws: ConstantRandom | None = None, *, gradients: bool = False
    ) -> list[Tensor]:
        try:
            with torch.set_grad_enabled(gradients):
                found = _outputs(self.small, self._inputs(run.side), training=run.training, draws=draws)
        except Exception as error:
            problem = f"the forward of the pruned model fails ({type(error).__name__}: {first_line(error)})"
            raise VerificationError("verify", problem, hint=_REPORT) from error
        return self._fitting(run, found)

    def _fitting(self, run: _Run, found: list[Tensor]) -> list[Tensor]:
        shapes = tuple(tuple(tensor.shape) for tensor in found)
        if shapes != run.shapes:
            raise VerificationError("verify", got=f"output shapes {list(shapes)}", expected=f"{list(run.shapes)}")
        return found

    def _not_finite(self, run: _Run, pruned: list[Tensor]) -> VerificationError:
        """Why outputs of the full model are not finite."""
        with torch.no_grad():
            whole = _outputs(self._copied(), self._inputs(run.side), training=run.training)
        if not _finite(whole):
            hint = "a forward that overflows on noise cannot be verified"
            return VerificationError("verify", "the outputs of the full model are not finite", hint=hint)
        if not _finite(pruned):
            hint = "a norm may have too few channels left: use a larger min_width"
            return VerificationError("verify", "the outputs of the pruned model are not finite", hint=hint)
        return VerificationError("verify", "the outputs depend on channels that the plan removes", hint=_REPORT)

    def _check_structure(self, run: _Run) -> None:
        """Shapes, finiteness and gradients of the pruned model."""
        for parameter in self.small.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            found = self._pruned_outputs(run, gradients=True)
            total = torch.stack([tensor.abs().sum() for tensor in found if tensor.requires_grad]).sum()
            try:
                total.backward()  # Not `autograd.grad`, which reentrant checkpoints do not support.
            except Exception as error:
                problem = f"the backward pass of the pruned model fails ({type(error).__name__}: {first_line(error)})"
                raise VerificationError("verify", problem) from error
        gradients = [parameter.grad for parameter in self.small.parameters() if parameter.grad is not None]
        if not _finite([*found, *gradients]):
            raise VerificationError("verify", "outputs or gradients of the pruned model are not finite")


def _mark_missing(model: nn.Module, plan: Plan) -> None:
    """Overwrite what a plan removes from parameters and buffers with NaN."""
    tensors = all_tensors(model, attributes=True)
    for entry in plan.slices:
        target = tensors[entry.tensor].detach()
        if target.is_floating_point():
            gone = np.delete(np.arange(entry.size), entry.keep)
            target.index_fill_(entry.dim, torch.from_numpy(gone).to(target.device), math.nan)


def _outputs(
    model: nn.Module,
    inputs: Any,
    *,
    training: bool,
    reads: list[bool] | None = None,
    draws: ConstantRandom | None = None,
) -> list[Tensor]:
    """All floating-point outputs in a mode; something is added to `reads` where the forward reads the mode.

    Attention does not take its fused path while a function mode is active. The model is left as it was, except for the
    values of buffers where a backward pass may need them.
    """
    seed_rng()
    modules = {id(module): module for module in all_modules(model).values()}.values()
    with preserve_state(model, values=not torch.is_grad_enabled()), BaseTorchFunctionMode(), draws or ConstantRandom():
        set_mode(modules, training)
        if reads is not None:
            note = partial(reads.append, True)
            watch_reads(modules, note, note)
        return [tensor for tensor in tensors_in(call_model(model, inputs)) if tensor.is_floating_point()]


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(torch.isfinite(tensor).all() for tensor in tensors)


def _compare(expected: list[Tensor], found: list[Tensor], tolerance: float) -> float:
    scale = max((float(tensor.abs().max()) for tensor in expected if tensor.numel()), default=1.0)
    gaps = [float((a - b).abs().max()) for a, b in zip(expected, found, strict=True) if a.numel()]
    error = max(gaps, default=0.0) / (scale or 1.0)
    if not error <= tolerance:
        problem = f"the outputs differ from the masked original's by {error:.3g}, with a tolerance of {tolerance:g}"
        raise VerificationError("verify", problem, hint=_REPORT)
    return error
