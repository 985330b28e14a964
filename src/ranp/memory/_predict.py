"""Running a training step on tensors without values."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from ranp.arguments import Count, checked, describe, require
from ranp.costs.memory import MemoryFormula, MemoryPrediction
from ranp.costs.training import TrainingSetup, to_channels_last
from ranp.errors import InputError, RanpError
from ranp.graph import ChannelGraph
from ranp.memory._formula import memory_formula
from ranp.memory._storages import StorageLog
from ranp.module_utils import Inputs, ModelWithShapes, preserve_rng, tensors_in
from ranp.surgery import resized
from ranp.tracing import MetaModel, forward_error

Size = int | Sequence[int]
"""Spatial size of the inputs: one number for all dimensions, or one for each."""

_NEEDS_GRAPH = "pass graph=ranp.trace(model, example_inputs)"
_CUDA_BLOCK = 512
"""The CUDA allocator rounds sizes up to multiples of this."""


def predict_memory(
    model: nn.Module,
    example_inputs: Inputs | None,
    setup: TrainingSetup | None = None,
    *,
    graph: ChannelGraph | None = None,
    widths: npt.ArrayLike | None = None,
    batch: int | None = None,
    size: Size | None = None,
) -> MemoryPrediction:
    """The peak memory of a training step, and what it consists of, without running the step.

    See `MemoryPredictor`, which takes these arguments and can be asked more than once.

    Example:
        >>> model = nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 2, 1))
        >>> found = predict_memory(model, torch.zeros(1, 1, 10, 10, 10))
        >>> found.peak_bytes, found.peak.phase
        (56152, 'backward')
    """
    return MemoryPredictor(model, example_inputs, setup, graph=graph).predict(widths, batch=batch, size=size)


class MemoryPredictor:
    """Predicts the memory of training steps of one model at any widths, batch size and input size.

    A step (forward, backward and optimizer) is executed on tensors that have shapes but no values, and the lifetime of
    every storage is recorded. The prediction is that of the second and all later steps, in which the optimizer's state
    exists. Gradients are freed before the forward pass, as `zero_grad()` does.

    Args:
        model: Any module; it is not changed.
        example_inputs: A tensor, a tuple (positional) or a dict (keyword arguments).
        setup: How the model is trained. It is assumed not to be compiled: a compiled step takes less memory.
        graph: The traced model, for other widths than the full ones.

    Where the setup names a GPU that this machine does not have, the step is that of the CPU, in blocks of the GPU's
    allocator.
    """

    @checked
    def __init__(
        self,
        model: ModelWithShapes,
        example_inputs: Inputs | None,
        setup: TrainingSetup | None = None,
        *,
        graph: ChannelGraph | None = None,
    ) -> None:
        setup = setup or TrainingSetup()
        self.graph = graph
        self.target = setup.device_of(model)
        device = self.target if self.target.type == "cuda" and torch.cuda.is_available() else torch.device("cpu")
        self.setup = replace(setup, device=device, compile=False)
        self._model, self._mode = model, FakeTensorMode(allow_non_fake_inputs=True)
        self._example_batch = tree_map_only(Tensor, self._without_values, setup.example_batch(example_inputs))

    def predict(
        self, widths: npt.ArrayLike | None = None, *, batch: int | None = None, size: Size | None = None
    ) -> MemoryPrediction:
        """The memory of a step.

        Args:
            widths: Width of every group of the graph, of shape (groups,); by default the full ones.
            batch: Number of samples; by default that of the example.
            size: Spatial size of the inputs; by default that of the example.

        Raises:
            InputError: Widths without a graph, or a batch that cannot be given another size.
            TraceError: The step cannot be run at this size.
        """
        cuda = self.target.type == "cuda"
        return self._run(widths, batch, size, StorageLog(block=_CUDA_BLOCK if cuda else 1, workspace=not cuda))

    def formula(self, *, batch: int | None = None, size: Size | None = None) -> MemoryFormula:
        """The peak as a formula of the widths, for `graph.with_costs(train_bytes=predictor.formula())`.

        It takes about three predictions to find and microseconds to evaluate, and is exact up to the rounding of the
        CUDA allocator. Where a block is no product of widths, it is an upper bound.

        Raises:
            InputError: There is no graph, or the steps at different widths do not correspond to each other.
        """
        if self.graph is None:
            raise InputError("memory formula", "it needs a graph", hint=_NEEDS_GRAPH)
        return memory_formula(lambda widths: self._run(widths, batch, size, StorageLog()), self.graph)

    def _run(
        self, widths: npt.ArrayLike | None, batch: int | None, size: Size | None, log: StorageLog
    ) -> MemoryPrediction:
        data = self._batch(batch, size)
        # A new copy each time: what is left of an earlier step's autograd graph may hold the parameters of that step.
        copied = MetaModel(self._model, data, self._without_values, self._mode)
        model = copied.model.train()
        with self._at(widths, copied), preserve_rng(model), torch.enable_grad():
            if self.setup.channels_last:
                to_channels_last(model)
            parameters = dict(model.named_parameters())
            optimizer = self._optimizer(model)
            log.hold("parameters", parameters)
            log.hold("buffers", dict(model.named_buffers()))
            log.hold("optimizer_state", _numbered(optimizer.state))
            log.hold("batch", _numbered(data))
            try:
                with copied.observed(log):
                    self.setup.run_step(model, data, optimizer)
                log.hold("gradients", {name: p.grad for name, p in parameters.items() if p.grad is not None})
                return log.prediction()
            except RanpError:
                raise
            except Exception as error:
                raise forward_error(error, log.path) from error

    def _optimizer(self, model: nn.Module) -> Optimizer:
        with self._mode:
            optimizer = self.setup.make_optimizer(model)
        for group in optimizer.param_groups if self.target.type == "cuda" else ():
            # What torch chooses there by default, but not for tensors without values.
            if group.get("foreach", ...) is None and not group.get("fused"):
                group["foreach"] = True
        return optimizer

    def _at(self, widths: npt.ArrayLike | None, copied: MetaModel) -> AbstractContextManager[None]:
        """The copy at other widths."""
        if widths is None:
            return nullcontext()
        if self.graph is None:
            raise InputError("predict_memory: widths", "they need a graph", hint=_NEEDS_GRAPH)
        if any(
            name not in copied.tensors or copied.tensors[name].shape != shape
            for name, shape in self.graph.shapes.items()
        ):
            raise InputError("graph", "it is that of another model", hint=_NEEDS_GRAPH)
        given = self.graph.as_widths(widths)
        if (given < 1).any():
            raise InputError("widths", got=str(given.tolist()), expected="widths of at least 1")
        return resized(copied.modules, copied.tensors, self.graph, given)

    def _without_values(self, tensor: Tensor) -> Tensor:
        """A tensor of the same shape on the device and in the precision of the training."""
        low = self.setup.precision == "bfloat16" and tensor.is_floating_point()
        with self._mode:
            dtype = torch.bfloat16 if low else tensor.dtype
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=self.setup.device)

    @property
    def batch(self) -> int:
        """Number of samples in the example batch."""
        return int(self._example().shape[0])

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of the example inputs."""
        return tuple(self._example().shape[2:])

    def _example(self) -> Tensor:
        """The first tensor of the batch with channels and positions."""
        found = next((tensor for tensor in tensors_in(self._example_batch) if tensor.ndim > 2), None)
        if found is None:
            expected = "a tensor of shape (N, C, ...) for another batch size or input size"
            raise InputError("batch", got=describe(self._example_batch), expected=expected)
        return found

    def _batch(self, batch: int | None, size: Size | None) -> Any:
        """The example batch with another number of samples, and tensors over positions at another size.

        Targets at lower resolutions keep their ratio.
        """
        if batch is None and size is None:
            return self._example_batch
        require("batch", batch, Count | None)
        require("size", size, Count | Sequence[Count] | None)
        samples, positions = self.batch, self.size
        wanted = positions if size is None else (size,) * len(positions) if isinstance(size, int) else tuple(size)
        if len(wanted) != len(positions):
            raise InputError("size", got=describe(size), expected=f"a size for each of {len(positions)} dimensions")

        def resize(tensor: Tensor) -> Tensor:
            shape = list(tensor.shape)
            if shape and shape[0] == samples:
                shape[0] = batch or samples
            for dim, (old, new) in enumerate(zip(positions, wanted, strict=True), len(shape) - len(positions)):
                if len(shape) > len(positions):
                    shape[dim] = max(round(shape[dim] * new / old), 1)
            return tensor.new_empty(shape)

        return tree_map_only(Tensor, resize, self._example_batch)


def _numbered(value: Any) -> dict[str, Tensor]:
    return {str(number): tensor for number, tensor in enumerate(tensors_in(value))}
