"""A copy of a model without values, and how it is run and observed.

Everything that observes a run is attached to the modules of the copy. Nothing that other threads or other models could
notice is changed: no class, no global hook, no backend flag, no logger.
"""

import sys
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
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ranp.module_utils import all_modules, all_tensors, as_arguments, copy_model, preserve_state
from ranp.tracing._shapes import run_operator

# Modules that run the same operators on channels in training and in eval mode.
MODE_INVARIANT = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
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


class Observer(TorchDispatchMode):
    """Is called for every operator of a run, and knows in which module it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Forward] = []  # the innermost last
        # Those that read `training` of a module, if `MetaModel.run` watches for that; None is a read outside of any.
        self.reading_mode: set[Forward | None] = set()
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

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while this is active, so torch need not guard every operator against that."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._failed = None  # It was handled. An error holds the tensors of its frames, which must not live longer.
        return run_operator(func, args, kwargs) if func.namespace == "prim" else self.operate(func, args, kwargs)

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator; subclasses extend this."""
        return run_operator(func, args, kwargs)


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
        return cls(model, example_inputs, lambda tensor: tensor.detach().to("meta"), torch.device("meta"))

    @classmethod
    def with_fake_tensors(cls, model: nn.Module, example_inputs: Any) -> "MetaModel":
        """Use fake tensors, which report the device of the real ones; about four times slower."""
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        return cls(model, example_inputs, mode.from_tensor, mode)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All parameters and buffers of the copy, under each of their names."""
        return all_tensors(self.model)

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
            for module in self._unique.values():
                module.training = training and not isinstance(module, MODE_INVARIANT)
            if watch_mode:
                self._watch_mode(observer)
            return forward() if forward else self.model(*args, **kwargs)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Report all operators to an observer; changes to attributes of the copy's modules are undone on exit."""
        self._observer = observer
        with preserve_state(self.model, values=False), self._mode, observer:
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

    def _watch_mode(self, observer: Observer) -> None:
        """Have reads of `training` noted until `preserve_state` undoes it."""

        def note() -> None:
            observer.reading_mode.add(observer.running[-1] if observer.running else None)

        for module in self._unique.values():
            if isinstance(module, MODE_INVARIANT):
                continue
            attributes = vars(module)
            if "training" not in attributes or hasattr(type(module), "training"):
                observer.reading_mode.add(None)  # Its class looks the mode up in its own way: assume that it is read.
            else:
                attributes["_buffers"] = _WatchedBuffers(attributes["_buffers"], attributes.pop("training"), note)


class _WatchedBuffers(dict[str, Any]):
    """The buffers of one module, among which `Module.__getattr__` also finds `training`.

    An attribute of the instance cannot be observed without changing its class, which forwards may compare. So
    `training` is removed from the instance; then Python calls `__getattr__`, and torch looks for it here.
    """

    def __init__(self, buffers: dict[str, Any], training: bool, note: Callable[[], None]) -> None:
        super().__init__(buffers)
        self._training, self._note = training, note

    def __contains__(self, name: object) -> bool:
        if name != "training":
            return super().__contains__(name)
        self._note()
        # To `Module.__setattr__` it must not look like a buffer: an assignment makes it an ordinary attribute again.
        return sys._getframe(1).f_code is nn.Module.__getattr__.__code__

    def __missing__(self, name: str) -> Any:
        if name == "training":
            return self._training
        raise KeyError(name)
