"""A copy of a model without values, and how it is run and observed.

Everything that observes a run is attached to the modules of the copy. Nothing that other threads or other models could
notice is changed: no class, no global hook, no backend flag, no logger.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import BaseTorchFunctionMode
from torch.utils._device import DeviceContext
from torch.utils._pytree import tree_map_only

from ranp.module_utils import (
    DispatchMode,
    all_modules,
    all_tensors,
    as_arguments,
    copy_model,
    preserve_rng,
    preserve_state,
)
from ranp.tracing._shapes import FUSED_ATTENTION, Decomposition, attention, run_operator
from ranp.training_mode import set_mode, watch_reads

_ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


@dataclass(frozen=True, eq=False)
class Forward:
    """One run of a module's forward on positional inputs; the path of the model itself is empty."""

    path: str
    module: nn.Module
    inputs: tuple[Any, ...]

    @property
    def bare(self) -> bool:
        """Whether the module holds no parameters, buffers or modules, so that it consists of its forward alone."""
        return not (self.module._parameters or self.module._buffers or self.module._modules)


class Observer(DispatchMode):
    """Is called for every operator of a run, and knows in which module it runs."""

    # Whether it is called for the operators that fused attention consists of, or for the fused one, as it runs.
    decomposes_attention = True

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Forward] = []  # the innermost last
        # Those that read `training` of a module, if `MetaModel.run` watches for that; None is a read outside of any.
        self.reading_mode: set[Forward | None] = set()
        self.values: list[Any] = []  # from which new tensors were made
        self._failed: tuple[BaseException, str] | None = None

    @property
    def path(self) -> str:
        """Path of the innermost module that is running; after an error, of the one in which it was raised."""
        if self.running:
            return self.running[-1].path
        return self._failed[1] if self._failed else ""

    def note_error(self, error: BaseException, path: str) -> None:
        """Remember in which module an error was raised; modules around it report the same error again."""
        if self._failed is None or self._failed[0] is not error:
            self._failed = error, path

    def note_mode(self) -> None:
        """Remember that the innermost forward reads `training` of a module."""
        self.reading_mode.add(self.running[-1] if self.running else None)

    def note_value(self, value: Any) -> None:
        """Remember a value of which a tensor is made, which no operator shows."""
        self.values.append(value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._failed = None  # It was handled. An error holds the tensors of its frames, which must not live longer.
        if func.namespace == "prim":
            return run_operator(func, args, kwargs)
        if self.decomposes_attention and func in FUSED_ATTENTION:
            _, *others = run_operator(func, args, kwargs)
            with self, Decomposition():
                return attention(func, args, kwargs), *others  # the others are for the backward pass
        return self.operate(func, args, kwargs)

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator; subclasses extend this."""
        return run_operator(func, args, kwargs)


class _MetaDevice(DeviceContext):
    """Makes new tensors on the meta device, and reports the values that they would have elsewhere."""

    def __init__(self, report: Callable[[Any], None]) -> None:
        super().__init__(torch.device("meta"))
        self.report = report

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and func in (torch.tensor, torch.as_tensor):
            self.report(args[0])
        return super().__torch_function__(func, types, args, kwargs)


class MetaModel:
    """A copy of a model whose tensors have shapes but no values.

    Attributes:
        model: The copy; its parameters and buffers have the names of the original's.
        inputs: Inputs for it, also without values.
        modules: All modules of the copy, under each of their paths.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        convert: Callable[[Tensor], Tensor],
        mode: AbstractContextManager[Any],
    ) -> None:
        if torch.__version__ < "2.8":
            # Old versions compute with tensors on this import, which must not happen within a forward without values.
            import_module("torch._dynamo")
        self.inputs = tree_map_only(Tensor, convert, example_inputs)
        self.model = copy_model(model, convert)
        self.modules = all_modules(self.model)
        self._mode = mode
        self._observer = Observer()
        self._unique = {id(module): module for module in self.modules.values()}
        self._intercept_calls()

    @classmethod
    def on_meta(cls, model: nn.Module, example_inputs: Any) -> "MetaModel":
        """Use meta tensors: the fastest way, but a forward that depends on its device cannot run on them."""
        made = cls(model, example_inputs, lambda tensor: tensor.detach().to("meta"), torch.device("meta"))
        made._mode = _MetaDevice(lambda value: made._observer.note_value(value))
        return made

    @classmethod
    def on_meta_with_attributes(cls, model: nn.Module, example_inputs: Any) -> "MetaModel":
        """The same, also for tensors in ordinary attributes, unless they have one dimension and may be read."""
        made = cls.on_meta(model, example_inputs)
        converted: dict[int, Tensor] = {}
        for module in made._unique.values():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and value.ndim > 1 and value.is_floating_point():
                    vars(module)[name] = converted.setdefault(id(value), value.detach().to("meta"))
        return made

    @classmethod
    def with_fake_tensors(cls, model: nn.Module, example_inputs: Any) -> "MetaModel":
        """Use fake tensors, which report the device of the real ones; about four times slower."""
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        return cls(model, example_inputs, mode.from_tensor, mode)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All parameters, buffers and other tensors that modules of the copy hold, under each of their names."""
        return all_tensors(self.model, attributes=True)

    def run(
        self,
        observer: Observer,
        *,
        training: bool = False,
        watch_mode: bool = False,
        forward: Callable[[], Any] | None = None,
    ) -> Any:
        """Run the copy, or another function of its modules, and return the outputs.

        In training mode, dropout and norms stay in eval mode, because they treat channels alike in both. With
        `watch_mode`, the forwards that read `training` are collected in `observer.reading_mode`.
        """
        args, kwargs = as_arguments(self.inputs)
        with self.observed(observer), torch.no_grad():
            set_mode(self._unique.values(), training)
            if watch_mode:
                # Functions, because a forward that copies a module would copy the observer that a method belongs to.
                watch_reads(
                    self._unique.values(),
                    read=lambda: observer.note_mode(),
                    unobservable=lambda: observer.reading_mode.add(None),  # assume that it is read
                )
            return forward() if forward else self.model(*args, **kwargs)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Report all operators to an observer; changes to attributes of the copy's modules are undone on exit."""
        self._observer = observer
        # With random numbers restored, every run draws the same.
        with preserve_rng(self.model), preserve_state(self.model, values=False), self._mode, observer:
            yield

    def _intercept_calls(self) -> None:
        """Give every module of the copy a `_call_impl` of its own, which tells the observer that its forward runs.

        That takes less time than two hooks per module. It is a bound method, so a module that a forward copies has one
        that belongs to the new module, which has no path and is not observed.
        """
        paths = {id(module): path for path, module in reversed(self.modules.items())}  # the first of several
        attention = {key for key, module in self._unique.items() if isinstance(module, _ATTENTION)}

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path, run, observer = paths.get(id(module)), type(module)._call_impl, self._observer
            if path is None:
                return run(module, *args, **kwargs)
            observer.running.append(Forward(path, module, args))
            try:
                if id(module) not in attention:
                    return run(module, *args, **kwargs)
                # The fused path is a single opaque operator; attention does not take it while a function mode is
                # active, and that affects only its own thread.
                with BaseTorchFunctionMode():
                    return run(module, *args, **kwargs)
            except BaseException as error:
                observer.note_error(error, path)
                raise
            finally:
                observer.running.pop()

        for module in self._unique.values():
            vars(module)["_call_impl"] = MethodType(call, module)
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False  # These would be for the fast path only.
            if isinstance(module, nn.parallel.DistributedDataParallel):
                module.broadcast_buffers = False  # Buffers of all layers would be sent as one tensor.
