"""Running a model whose tensors have shapes but no values."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from ranp.errors import TraceError, first_line
from ranp.module_utils import all_modules, all_tensors, as_arguments, copy_model, preserve_state
from ranp.tracing._direct import result
from ranp.tracing._records import Call, Forward

# What runs the same operators on channels in both modes.
ALIKE = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


class Observer(TorchDispatchMode):
    """Sees every operator of a forward pass, and where it runs.

    Attributes:
        running: The modules whose forward is running, the innermost last; after an error those in which it happened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Forward] = []

    @property
    def path(self) -> str:
        """Path of the innermost module that is running."""
        return self.running[-1].path if self.running else ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while this is on, so the guard that torch puts around every operator is left out."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return result(func, args, kwargs) if func.namespace == "prim" else self.operate(func, args, kwargs)

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What an operator returns; whoever watches operators does it here."""
        return result(func, args, kwargs)


class Recorder(Observer):
    """Writes down every operator; what the calls hold stays alive with it, so ids tell tensors apart."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator and append it."""
        out = super().operate(func, args, kwargs)
        self.calls.append(Call(func, args, kwargs, out, self.running[-1]))
        return out


@dataclass(frozen=True)
class Stage:
    """A copy of a model whose tensors have shapes but no values, and what it takes to run it.

    Attributes:
        model: The copy; its parameters and buffers have the names of the original's.
        inputs: Inputs for it, without values too.
        modes: What to enter before running it.
    """

    model: nn.Module
    inputs: Any
    modes: tuple[AbstractContextManager[Any], ...]

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """All modules of the copy, under each of their paths."""
        return all_modules(self.model)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers of the copy, under each of their names."""
        return all_tensors(self.model)

    def run(self, observer: Observer, *, training: bool = False, forward: Callable[[], Any] | None = None) -> Any:
        """Run the copy, or something else with its modules, and return what comes out.

        In training mode dropout and norms stay as they are in eval mode: they do the same to channels.
        """
        args, kwargs = as_arguments(self.inputs)
        with ExitStack() as stack:
            for context in (_quiet(), preserve_state(self.model), _paths(self.modules, observer), _slow_attention()):
                stack.enter_context(context)
            for module in self.modules.values():
                module.training = training and not isinstance(module, ALIKE)
            for mode in (torch.no_grad(), *self.modes):
                stack.enter_context(mode)
            with observer:
                return forward() if forward else self.model(*args, **kwargs)


def on_meta(model: nn.Module, example_inputs: Any) -> Stage:
    """A stage of meta tensors: the fastest; a forward that minds its device cannot run on it."""
    return _stage(model, example_inputs, lambda tensor: tensor.detach().to("meta"), torch.device("meta"))


def with_fake_tensors(model: nn.Module, example_inputs: Any) -> Stage:
    """A stage of fake tensors, which pretend to be where the real ones are; some four times slower."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    return _stage(model, example_inputs, mode.from_tensor, mode)


def _stage(
    model: nn.Module, example_inputs: Any, convert: Callable[[Tensor], Tensor], mode: AbstractContextManager[Any]
) -> Stage:
    inputs = torch.utils._pytree.tree_map_only(Tensor, convert, example_inputs)
    return Stage(copy_model(model, convert), inputs, (mode,))


def explain(error: Exception, path: str) -> TraceError:
    """An error of the model's forward, as a user can act on it."""
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
        got=f"{type(error).__name__}: {first_line(error)}",
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
def _paths(modules: Mapping[str, nn.Module], observer: Observer) -> Iterator[None]:
    """Tell the observer which module is running.

    Hooks on all modules of the process, told apart by identity, cost less than two on each module of the model.
    """
    paths: dict[int, str] = {}
    for path, module in modules.items():
        paths.setdefault(id(module), path)

    def enter(module: nn.Module, args: Any) -> None:
        if id(module) in paths:
            observer.running.append(Forward(paths[id(module)], module, args))

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        if id(module) in paths:
            observer.running.pop()

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
