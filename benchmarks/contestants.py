"""The tools that the zoo benchmark compares: ranp and Torch-Pruning, each pruning one network to a budget."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

import ranp
from families import Member
from ranp.errors import RanpError, VerificationError
from ranp.module_utils import call_model, copy_model, tensors_in

Status = Literal["works", "refused", "wrong", "crashes"]


@dataclass(frozen=True)
class Outcome:
    """The result of pruning one network.

    Attributes:
        status: `works`; `refused` with an error that gives the reason; `wrong`: the pruned model does not run, or its
            outputs have wrong shapes or values; `crashes` with any other error.
        proof: `exact` or `structural`, if the result was verified.
        macs: Fraction of the multiply-adds that is left, according to torch's own counter.
        seconds: Processor time of analysis and surgery, without verification.
        unprunable: Fraction of the multiply-adds in layers that cannot be pruned, other than the output layers.
        note: Why it does not work, or which operators prevent pruning.
    """

    status: Status
    proof: str = ""
    macs: float | None = None
    seconds: float | None = None
    unprunable: float | None = None
    note: str = ""


def prune_with_ranp(member: Member, budget: float) -> Outcome:
    """Prune by random scores to the budget, or to the lowest cost that can be reached."""
    model, small_inputs = member.build().eval(), member.inputs()
    inputs, full = usual_inputs(model, small_inputs)
    begin = _begin()
    try:
        graph = ranp.trace(model, inputs)
        if not graph.groups:
            return Outcome("refused", note="; ".join(sorted({entry.reason for entry in graph.unprunable}))[:160])
        least = graph.cost([1] * len(graph.groups)).macs / graph.cost().macs
        scores = ranp.score(model, graph, [], criterion="random")
        plan = ranp.allocate(graph, scores, ranp.Budget(macs=max(budget, least)))
        small = ranp.apply(model, plan)
    except RanpError as error:
        return Outcome("refused", note=_short(error))
    except Exception as error:
        return Outcome("crashes", note=_short(error))
    seconds = time.process_time() - begin
    inner = [entry for entry in graph.unprunable if entry.operator != "output"]
    unprunable = sum(entry.macs_share for entry in inner)
    note = "; ".join(f"{e.operator} in {e.path or 'forward'}" for e in sorted(inner, key=lambda e: -e.macs_share)[:2])
    try:
        proof = ranp.verify(model, plan, small_inputs).status
        left = counted_macs(small, inputs) / full
    except (VerificationError, RuntimeError) as error:
        return Outcome("wrong", seconds=seconds, unprunable=unprunable, note=_short(error))
    return Outcome("works", proof, left, seconds, unprunable, note)


def prune_with_torch_pruning(member: Member, budget: float) -> Outcome:
    """Prune by random importance with one ratio: removing 1 - sqrt(b) of all channels leaves about b of the MACs.

    The output layers are ignored, which its documentation leaves to the user; `ranp.trace` finds them here.
    """
    import torch_pruning as tp

    model = member.build().eval()
    small_inputs = member.inputs()
    inputs, full = usual_inputs(model, small_inputs)
    with torch.no_grad():
        expected = _shapes(model, small_inputs)
    ignored = _output_layers(model, inputs)
    begin = _begin()
    try:
        pruner = tp.pruner.BasePruner(
            model,
            inputs if isinstance(inputs, dict) else tuple(inputs),
            importance=tp.importance.RandomImportance(),
            pruning_ratio=1 - budget**0.5,
            ignored_layers=ignored,
        )
        pruner.step()
    except Exception as error:
        return Outcome("crashes", note=_short(error))
    seconds = time.process_time() - begin
    try:
        with torch.no_grad():
            found, left = _shapes(model, small_inputs), counted_macs(model, inputs)
    except Exception as error:
        return Outcome("wrong", seconds=seconds, note=f"the pruned model fails: {_short(error)}")
    if found != expected:
        return Outcome("wrong", "", left / full, seconds, note=f"returns {found[:2]} instead of {expected[:2]}")
    if left == full:
        return Outcome("wrong", "", 1.0, seconds, note="nothing was pruned")
    return Outcome("works", "", left / full, seconds)


CONTESTANTS: dict[str, Callable[[Member, float], Outcome]] = {
    "ranp": prune_with_ranp,
    "Torch-Pruning": prune_with_torch_pruning,
}


def usual_inputs(model: nn.Module, inputs: Any) -> tuple[Any, float]:
    """Inputs of a usual size if the model accepts it, otherwise the given ones; and the multiply-adds on them."""
    large = tree_map_only(torch.Tensor, _enlarged, inputs)
    try:
        return large, counted_macs(model, large)
    except Exception:
        return inputs, counted_macs(model, inputs)


def _enlarged(tensor: torch.Tensor) -> torch.Tensor:
    """Volumes of up to 96 voxels a side; images, and clips with the same number of frames, of up to 256 pixels."""
    spatial = tensor.shape[2:]
    volume = len(spatial) == 3 and len(set(spatial)) == 1
    times = (96 if volume else 256) // max(spatial, default=256)
    if len(spatial) < 2 or times < 2:
        return tensor
    return tensor.repeat(*(times if dim >= tensor.ndim - (3 if volume else 2) else 1 for dim in range(tensor.ndim)))


def counted_macs(model: nn.Module, inputs: Any) -> float:
    """Multiply-adds of one forward pass, according to torch's own counter of floating-point operations.

    They are counted on the meta device if the model supports it, because large inputs take long.
    """

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to("meta")

    try:
        shapes = copy_model(model, convert)
        with torch.device("meta"):
            return _counted(shapes, tree_map_only(torch.Tensor, convert, inputs))
    except Exception:
        return _counted(model, inputs)


def _counted(model: nn.Module, inputs: Any) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call_model(model, inputs)
    return float(max(counter.get_total_flops(), 1)) / 2


def _shapes(model: nn.Module, inputs: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_in(call_model(model, inputs))]


def _output_layers(model: nn.Module, inputs: Any) -> list[nn.Module]:
    try:
        final = {layer.name for layer in ranp.trace(model, inputs).layers if layer.final}
    except RanpError:
        return []
    return [module for name, module in model.named_modules() if name in final]


def _begin() -> float:
    """Start of the measurement; the garbage collector ignores the objects that exist before it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    return time.process_time()


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:160]
