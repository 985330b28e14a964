"""Recording what a model does to its tensors: every operator of a forward pass, in eval and in training mode."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from inspect import signature
from itertools import count, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._pytree import tree_map_only

from ranp.errors import RanpError, TraceError, first_line
from ranp.module_utils import all_tensors, attribute_tensors, tensors_in
from ranp.tracing._meta_model import Forward, MetaModel, Observer

# Operators that are not elementwise and take whole numbers as values.
_FILLS = {"full", "full_like", "fill", "scalar_tensor"}


def numbers_in(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[float]:
    """Numbers among the arguments of an operator that are values, not sizes or dimensions."""
    kinds = (int, float) if torch.Tag.pointwise in func.tags or func.overloadpacket.__name__ in _FILLS else (float,)
    return [value for value in (*args, *kwargs.values()) if type(value) in kinds]


@dataclass(frozen=True)
class Call:
    """One operator as it ran: its arguments, what it returned, and the innermost forward in which it ran."""

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    forward: Forward

    @property
    def path(self) -> str:
        """Path of the module in whose forward it ran."""
        return self.forward.path

    @cached_property
    def name(self) -> str:
        """The operator's name, without namespace and overload, such as `sort`."""
        return str(self.function.overloadpacket.__name__)

    @property
    def qualified_name(self) -> str:
        """The operator's name with its namespace, such as `aten::sort`."""
        return f"{self.function.namespace}::{self.name}"

    @property
    def numbers(self) -> list[float]:
        """Numbers among its arguments that are values."""
        return numbers_in(self.function, self.args, self.kwargs)

    @cached_property
    def tensors(self) -> list[Tensor]:
        """All tensor arguments, including those within lists."""
        return tensors_in((self.args, self.kwargs))

    @cached_property
    def outputs(self) -> list[Tensor]:
        """All tensors that it returned."""
        return tensors_in(self.out)

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument, given by position or by keyword."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)


class _CallLog(Observer):
    """Records every operator. The calls keep their tensors alive, so that ids identify tensors."""

    def __init__(self, root: Forward) -> None:
        super().__init__()
        self.root = root
        self.calls: list[Call] = []

    def operate(self, func: Any, args: Any, kwargs: Any) -> Any:
        forward = self.running[-1] if self.running else self.root
        given = self._before(args) if torch.Tag.inplace_view in func.tags else args
        out = None  # of an operator that fails, which the forward may handle
        try:
            out = super().operate(func, args, kwargs)
        finally:
            self.calls.append(Call(func, given, kwargs, out, forward))
        return out

    def _before(self, args: Any) -> Any:
        """Arguments of an operator that is about to give the first of them another shape in place.

        A view of the present shape takes its place, in all earlier calls too.
        """
        target, view = args[0], args[0].detach()

        def replaced(value: Any) -> Any:
            return tree_map_only(Tensor, lambda tensor: view if tensor is target else tensor, value)

        self.calls = [
            Call(call.function, replaced(call.args), replaced(call.kwargs), replaced(call.out), call.forward)
            for call in self.calls
        ]
        return replaced(args)


@dataclass(frozen=True)
class Capture:
    """One forward pass as it was recorded: operators in the order in which they ran, and the modules reading the mode.

    `reading_mode` holds the forwards that read `training`, where that was watched; None is a read outside of any.
    """

    inputs: list[Tensor]
    calls: list[Call]
    outputs: list[Tensor]
    reading_mode: Set[Forward | None] = frozenset()
    values: Sequence[Any] = ()  # from which new tensors were made

    @classmethod
    def record(
        cls,
        meta_model: MetaModel,
        *,
        training: bool = False,
        watch_mode: bool = False,
        forwards: Sequence[Forward] = (),
    ) -> "Capture":
        """Run a model, or some of its modules one after the other on the inputs that they had, and record it."""
        log = _CallLog(Forward("", meta_model.model, ()))
        inputs = [forward.inputs for forward in forwards] or meta_model.inputs
        run = partial(_run_each, forwards) if forwards else None
        try:
            outputs = meta_model.run(log, training=training, watch_mode=watch_mode, forward=run)
        except RanpError:
            raise
        except Exception as error:
            raise forward_error(error, log.path) from error
        tensors = tensors_in(outputs)
        if not tensors:
            expected = "tensors, or lists, tuples, dicts or dataclasses of them"
            raise TraceError("output of the model", got=type(outputs).__name__, expected=expected)
        return cls(tensors_in(inputs), log.calls, tensors, log.reading_mode, log.values)

    def with_unused_outputs(self) -> "Capture":
        """The same pass, of which also those tensors are outputs that nothing reads: another mode may return them."""
        read, unused = {id(tensor) for tensor in self.outputs}, list[Tensor]()
        for call in reversed(self.calls):
            unused += [tensor for tensor in call.outputs if id(tensor) not in read]
            read.update(map(id, call.tensors))
        return replace(self, outputs=[*self.outputs, *unused])

    def equivalent_to(self, other: "Capture") -> bool:
        """Whether another pass does the same to channels: runs the same operators on the same tensors.

        Modules that pass their input on, element by element or scaled by one number per sample, do not count.
        """
        return self._steps() == other._steps()

    def _steps(self) -> list[Any]:
        """Which operator ran where on which tensors, which are numbered by first occurrence with their shapes."""
        following, numbers = count(), dict[int, int]()
        steps: list[Any] = []

        def number(tensor: Tensor) -> int:
            if id(tensor) not in numbers:
                numbers[id(tensor)] = next(following)
                steps.append(tensor.shape)
            return numbers[id(tensor)]

        steps.append([*map(number, self.inputs)])
        for _, run in groupby(self.calls, key=lambda call: id(call.forward)):
            calls = list(run)
            source = _passed_on(calls)
            for call in calls:
                if source is None:
                    names = [call.path, call.qualified_name]
                    steps += [*names, [*map(number, call.tensors)], [*map(number, call.outputs)]]
                else:
                    numbers |= dict.fromkeys(map(id, call.outputs), number(source))
        steps.append([*map(number, self.outputs)])
        return steps


def _run_each(forwards: Sequence[Forward]) -> list[Tensor]:
    outputs = [forward.module(*forward.inputs) for forward in forwards]
    if not all(isinstance(output, Tensor) for output in outputs):
        raise TypeError("what a module returns besides one tensor may depend on the mode")
    return outputs


def _passed_on(run: list[Call]) -> Tensor | None:
    """The tensor that a module passes on element by element, or None where it does more than that."""
    if not run[0].forward.bare:
        return None
    source, found = None, set[int]()
    for call in run:
        wide = [] if call.name.startswith("new_") else [tensor for tensor in call.tensors if _is_wide(tensor)]
        if not wide and not any(map(_is_wide, call.outputs)):
            continue  # One number per sample, computed from nothing but such numbers.
        if not wide or torch.Tag.pointwise not in call.function.tags:
            return None
        source = wide[0] if source is None else source
        if any(tensor is not source and id(tensor) not in found for tensor in wide):
            return None
        if any(tensor.numel() > 1 and tensor.ndim != source.ndim for tensor in call.tensors):
            return None  # Broadcast along another dimension than that of the samples.
        if any(output.shape != source.shape for output in call.outputs):
            return None
        found |= {id(output) for output in call.outputs}
    return source


def _is_wide(tensor: Tensor) -> bool:
    return any(size > 1 for size in tensor.shape[1:])


@dataclass(frozen=True)
class ModelCapture:
    """All that was recorded of a model."""

    meta_model: MetaModel
    passes: tuple[Capture, ...]  # one in eval mode and, where that is not equivalent, one in training mode
    untraced_training_mode: str = ""  # why training mode could not be run
    again: bool = False  # whether it was recorded a second time

    def repeated(self) -> "ModelCapture":
        """The same passes recorded again, as they run once the forward has cached what it caches outside the model."""
        passes = [Capture.record(self.meta_model, training=bool(index)) for index in range(len(self.passes))]
        return replace(self, passes=tuple(passes), again=True)


def capture(model: nn.Module, example_inputs: Any) -> ModelCapture:
    """Run a model without values, in eval mode and, unless its forward never reads the mode, in training mode.

    Heads for deep supervision, auxiliary classifiers and the like may run in training mode only. Where training mode
    cannot be run (because layers are dropped at random, for example), eval mode has to suffice.
    """
    devices = {tensor.device for tensor in (*all_tensors(model).values(), *tensors_in(example_inputs))}
    kinds = [MetaModel.with_fake_tensors]
    if len(devices) == 1:  # Only fake tensors show whether a model on several devices works.
        kinds.insert(0, MetaModel.on_meta)
        if any(True for _ in attribute_tensors(model)):
            kinds.insert(0, MetaModel.on_meta_with_attributes)
    in_eval_mode: ModelCapture | None = None
    for make in kinds:
        try:
            meta_model = make(model, example_inputs)
            found = ModelCapture(meta_model, (Capture.record(meta_model, watch_mode=True),))
            in_eval_mode = in_eval_mode or found
            if mode_invariant(meta_model, found.passes[0].reading_mode):
                return found
            training = Capture.record(meta_model, training=True)
        except TraceError as error:
            failure = error
            continue
        return found if found.passes[0].equivalent_to(training) else replace(found, passes=(*found.passes, training))
    if in_eval_mode is None:
        raise failure
    only = in_eval_mode.passes[0].with_unused_outputs()
    return replace(in_eval_mode, passes=(only,), untraced_training_mode=str(failure))


def mode_invariant(meta_model: MetaModel, reading_mode: Set[Forward | None]) -> bool:
    """Whether all forwards that read the mode do the same to channels in both, judged by running each by itself.

    That can be judged only of modules that consist of their forward, such as stochastic depth.
    """
    forwards = [
        forward
        for forward in reading_mode
        # Keyword inputs are not recorded: the signature must not leave room for any.
        if forward and forward.bare and len(signature(forward.module.forward).parameters) == len(forward.inputs)
    ]
    if len(forwards) < len(reading_mode) or not forwards:
        return not reading_mode
    try:
        passes = [Capture.record(meta_model, training=training, forwards=forwards) for training in (False, True)]
    except RanpError:
        return False
    return passes[0].equivalent_to(passes[1])


def forward_error(error: Exception, path: str) -> TraceError:
    """An error of the model's forward, with advice for the user."""
    where = f"forward of {path or 'the model'}"
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
        problem = "uses a value or shape that depends on the data (such as .item() or nonzero)"
        return TraceError(where, problem, hint="move data-dependent control flow out of forward")
    problem = f"fails on the example inputs with {type(error).__name__}: {first_line(error)}"
    return TraceError(where, problem, hint="check the shape, dtype and device of example_inputs")
