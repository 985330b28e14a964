"""The proof: pruned output equals the output of the original with the removed channels' consumers zeroed."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ranp.arguments import checked
from ranp.errors import RanpError, VerificationError, first_line
from ranp.module_utils import (
    DispatchMode,
    Inputs,
    ModelWithValues,
    all_tensors,
    call_model,
    copy_model,
    preserve_rng,
    tensors_in,
)
from ranp.plan import Plan
from ranp.surgery._apply import apply

TOLERANCE = 1e-9
# Where a forward requires its own precision: enough to detect a wrong channel.
COARSE_TOLERANCE = 1e-2
_SIDES = (8, 16, 32)
_DRAWS = ("rand", "normal", "uniform", "bernoulli", "exponential")


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        status: `exact`: outputs are equal in float64. `structural`: that was not possible (see `note`), and shapes,
            finiteness and gradients were checked instead.
        max_error: Largest difference of outputs, relative to the largest output; NaN if not compared.
        outputs: Shapes of the outputs that were compared.
        note: Why it is not exact; empty if it is.
    """

    status: Literal["exact", "structural"]
    max_error: float
    outputs: tuple[tuple[int, ...], ...]
    note: str = ""


@checked
def verify(model: ModelWithValues, plan: Plan, example_inputs: Inputs) -> Verification:
    """Prove that pruning a model by a plan does what the plan says, in float64 and eval mode.

    The model is copied; in one copy every weight that reads a removed channel is set to zero there, the other is
    pruned, and both get the same noise as input. The weights of both copies are first rescaled in the same way, so that
    signals reach the output: with a plain initialization they vanish within a few dozen layers, and any two outputs are
    equal. Large inputs are cut to a few positions per side, where the model accepts that: what happens to channels does
    not depend on the number of positions.

    Args:
        model: The full model.
        plan: A plan for it.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).

    Raises:
        VerificationError: The outputs differ, or are not finite.
        PlanError: The plan was made for another model.
    """
    with preserve_rng(model):
        for name, parameter in model.named_parameters():
            if not torch.isfinite(parameter).all():
                problem, hint = "the weights contain NaN or infinity", "initialize the model"
                raise VerificationError(f"verify: {name}", problem, hint=hint)
        masked, small, inputs, expected = _prepare(model, plan, example_inputs)
        if not all(torch.isfinite(tensor).all() for tensor in expected):
            hint = "a forward that overflows on noise cannot be verified"
            raise VerificationError("verify", "the outputs of the full model are not finite", hint=hint)
        double = all(p.dtype == torch.float64 for p in masked.parameters() if p.is_floating_point())
        if plan.has_cross_channel_norm:
            note = "a norm mixes channels, so that removing some changes the values of others"
            return Verification("structural", float("nan"), _check_structure(small, inputs, expected), note)
        with torch.no_grad():
            found = _pruned_outputs(small, inputs)
        shapes = _check_shapes(expected, found)
        error = _compare(expected, found, TOLERANCE if double else COARSE_TOLERANCE)
        if double:
            return Verification("exact", error, shapes)
        _check_structure(small, inputs, expected)
        return Verification("structural", error, shapes, "the model does not run in float64")


def _prepare(model: nn.Module, plan: Plan, example_inputs: Any) -> tuple[nn.Module, nn.Module, Any, list[Tensor]]:
    """Masked and pruned copies in float64, or in the model's own precision where its forward requires that."""
    for dtype in (torch.float64, None):

        def cast(tensor: Tensor, dtype: torch.dtype | None = dtype) -> Tensor:
            return tensor.detach().to(dtype if tensor.is_floating_point() else None, copy=True)

        try:
            masked = copy_model(model, cast).eval()
            _rescale_weights(masked)
            small = apply(masked, plan)
            if not plan.has_cross_channel_norm:
                mask(masked, plan)
            return masked, small, *_run_small(masked, example_inputs, dtype)
        except RanpError:
            raise
        except Exception as error:
            failure = error
    problem = f"the forward fails on inputs of the kind of example_inputs ({type(failure).__name__}: {failure})"
    raise VerificationError("verify", problem) from failure


def mask(model: nn.Module, plan: Plan) -> None:
    """Set every weight that reads a removed channel to zero there, in place."""
    tensors = all_tensors(model)
    for entry in plan.slices:
        if entry.reads:
            gone = sorted(set(range(entry.size)) - set(entry.keep))
            index = torch.tensor(gone, device=tensors[entry.tensor].device)
            tensors[entry.tensor].data.index_fill_(entry.dim, index, 0.0)


def _pruned_outputs(small: nn.Module, inputs: Any) -> list[Tensor]:
    try:
        return _outputs(small, inputs)
    except Exception as error:
        problem = f"the pruned model fails where the full one runs ({type(error).__name__}: {first_line(error)})"
        raise VerificationError("verify", problem, hint="check that the plan was made for this model") from error


def _check_shapes(expected: list[Tensor], found: list[Tensor]) -> tuple[tuple[int, ...], ...]:
    wanted, got = (tuple(tuple(tensor.shape) for tensor in tensors) for tensors in (expected, found))
    if got != wanted:
        raise VerificationError("verify", got=f"output shapes {list(got)}", expected=f"{list(wanted)}")
    return wanted


def _compare(expected: list[Tensor], found: list[Tensor], tolerance: float) -> float:
    scale = max((float(tensor.abs().max()) for tensor in expected if tensor.numel()), default=1.0)
    gaps = [float((a - b).abs().max()) for a, b in zip(expected, found, strict=True) if a.numel()]
    error = max(gaps, default=0.0) / (scale or 1.0)
    if not error <= tolerance:
        problem = f"the outputs differ from the masked original's by {error:.3g}, with a tolerance of {tolerance:g}"
        hint = "the model's forward does something that tracing does not understand: please report it"
        raise VerificationError("verify", problem, hint=hint)
    return error


def _check_structure(small: nn.Module, inputs: Any, wanted: list[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Shapes, finiteness and gradients."""
    with torch.enable_grad():
        for parameter in small.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        found = _pruned_outputs(small, inputs)
        shapes = _check_shapes(wanted, found)
        total = torch.stack([tensor.abs().sum() for tensor in found if tensor.requires_grad]).sum()
        gradients = torch.autograd.grad(total, list(small.parameters()), allow_unused=True)
    checked = [total, *(gradient for gradient in gradients if gradient is not None)]
    if not all(torch.isfinite(tensor).all() for tensor in checked):
        raise VerificationError("verify", "outputs or gradients of the pruned model are not finite")
    return shapes


def _rescale_weights(model: nn.Module) -> None:
    """Scale every weight so that signals keep their variance through a ReLU, and perturb every shift and scale."""
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device, like.dtype)

    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.ndim < 2:
                parameter.add_(noise(parameter), alpha=0.1)
                continue
            if not parameter.any():
                parameter.copy_(noise(parameter))
            spread = parameter.square().mean().sqrt()
            parameter.mul_((2 / parameter[0].numel()) ** 0.5 / spread)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.add_(noise(module.running_mean), alpha=0.1)


def _run_small(model: nn.Module, example_inputs: Any, dtype: torch.dtype | None) -> tuple[Any, list[Tensor]]:
    """The smallest inputs that the model accepts, and its outputs on them."""
    with torch.no_grad():
        for side in _SIDES:
            inputs = _noise(example_inputs, side, dtype)
            # May be too small for this model, or it accepts one size only: then the given size comes last.
            with suppress(Exception):
                return inputs, _outputs(model, inputs)
        inputs = _noise(example_inputs, None, dtype)
        return inputs, _outputs(model, inputs)


class _ConstantRandom(DispatchMode):
    """Replaces random numbers of any shape by the same constant, which both copies of a model then use."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.startswith(_DRAWS):
            for tensor in tensors_in(out):
                if tensor.is_floating_point():
                    tensor.fill_(0.5)
        return out


def _noise(value: Any, side: int | None, dtype: torch.dtype | None) -> Any:
    """Inputs like the given ones: noise for floating-point tensors, cut to `side` per spatial dimension."""
    generator = torch.Generator().manual_seed(0)

    def like(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: like(entry) for key, entry in item.items()}
        if isinstance(item, (tuple, list)):
            return type(item)(like(entry) for entry in item)
        if not isinstance(item, Tensor):
            return item
        if side is not None and item.ndim >= 4:
            item = item[(slice(None), slice(None), *(slice(0, side),) * (item.ndim - 2))]
        if not item.is_floating_point():
            return item
        noise = torch.randn(item.shape, generator=generator, dtype=torch.float64)
        return noise.to(item.device, dtype or item.dtype)

    return like(value)


def _outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    torch.manual_seed(0)  # for whole numbers, such as which tokens to mask
    with _ConstantRandom():
        return [tensor for tensor in tensors_in(call_model(model, inputs)) if tensor.is_floating_point()]
