"""Running a model under fake tensors, which have shapes but no values."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from ranp._calling import as_call, tensors_in
from ranp._state import untouched
from ranp.errors import TraceError


class Observer(TorchDispatchMode):
    """Sees every operator of a forward pass, and which module it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = [""]
        self.module: list[nn.Module] = []


class Shapes(Observer):
    """Notes the shapes of all that operators return."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[int, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace != "prim":
            self.found.append((func.overloadpacket.__name__, [tuple(tensor.shape) for tensor in tensors_in(out)]))
        return out


def fake_run(model: nn.Module, example_inputs: Any, observer: Observer) -> Any:
    """Run a model in eval mode under fake tensors; returns its outputs as fake tensors.

    The model is left as it was; its parameters and buffers are read, never written.
    """
    args, kwargs = as_call(example_inputs)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with ExitStack() as stack:
        for context in (_quiet(), untouched(model), _paths(model, observer), _slow_attention()):
            stack.enter_context(context)
        for module in model.modules():
            module.training = False
        for mode_ in (torch.no_grad(), mode, _DirectNorms()):
            stack.enter_context(mode_)
        args, kwargs = torch.utils._pytree.tree_map_only(Tensor, mode.from_tensor, (args, kwargs))
        with observer:
            return model(*args, **kwargs)


class _DirectNorms(TorchDispatchMode):
    """Gives the shapes of batch norms at once.

    Fake tensors would work through their decomposition, which takes most of the time of tracing a typical network.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.native_batch_norm.default:
            return func(*args, **(kwargs or {}))
        source, *parameters, training = args[:6]
        channels = source.shape[1]
        for parameter in parameters:
            if parameter is not None and parameter.shape != (channels,):
                raise RuntimeError(f"batch norm of {channels} channels with {tuple(parameter.shape)} parameters")
        statistics = [source.new_empty(channels if training else 0) for _ in range(2)]
        return torch.empty_like(source), *statistics


def explain(error: Exception, path: str) -> TraceError:
    """An error of the model's forward under fake tensors, as a user can act on it."""
    where = f"forward of {path or 'the model'}"
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
        return TraceError(
            where,
            got="a value or shape that depends on the data (such as .item() or nonzero)",
            expected="a forward whose operators depend on shapes alone",
            hint="move data-dependent control flow out of forward",
        )
    return TraceError(
        where,
        got=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
        expected="a forward pass that runs on the example inputs",
        hint="check the shape, dtype and device of example_inputs",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging what is raised as an error anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Have attention run as ordinary operators: its fused inference path is one opaque operator."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _paths(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Tell the observer which module is running."""
    handles = []
    for path, module in model.named_modules():

        def enter(module: nn.Module, args: Any, path: str = path) -> None:
            observer.path.append(path)
            observer.module.append(module)

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            observer.path.pop()
            observer.module.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
