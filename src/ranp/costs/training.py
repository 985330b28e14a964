"""How a user trains, stated once: what measures, predicts or compares training steps takes the same steps."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format, convert_conv3d_weight_memory_format
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils._pytree import tree_map_only

from ranp.arguments import Count, describe, require_fields
from ranp.environment import hardware
from ranp.errors import InputError, nearest
from ranp.module_utils import call_model, tensors_in

Step: TypeAlias = Callable[[nn.Module, Any], Tensor]
"""From a model and a batch to a loss."""
Loss: TypeAlias = Callable[[Any, Any], Any]
"""From outputs and targets to a loss."""
MakeOptimizer: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]
Precision: TypeAlias = Literal["float32", "bf16-mixed", "16-mixed", "bfloat16"]

OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {"adamw": AdamW, "adam": Adam, "sgd": partial(SGD, momentum=0.9)}
"""Optimizers by name; each takes parameters, `lr` and `weight_decay`."""

_AUTOCAST: dict[Precision, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_LIGHTNING = {"32-true": "float32", "32": "float32", "bf16-true": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """How a network is trained: what decides the time and the memory of a training step besides the network.

    Args:
        loss_fn: From `(outputs, targets)` to a scalar. By default the mean of squares of each floating-point output,
            summed over the outputs, which needs no targets.
        step: Instead of `loss_fn`, a function of (model, batch) that returns the loss.
        batch: An example batch: `(inputs, targets)`, inputs a tensor, a tuple (positional) or a dict (keyword
            arguments); for `step`, whatever that takes. By default the example inputs of the model, without targets.
        optimizer: `adamw`, `adam` or `sgd` (with a momentum of 0.9), or a function from parameters to an optimizer.
        precision: `float32`, `bf16-mixed` or `16-mixed` (autocast, the latter with a gradient scaler), or `bfloat16`
            (the weights too). Lightning's `32-true` and `bf16-true` are understood.
        channels_last: Whether the weights of convolutions are in channels-last memory format, so that activations are.
        compile: Whether the model is compiled by `torch.compile`.
        threads: Threads on the CPU; by default as many as torch uses.
        device: Where the model is trained; by default where its parameters are.

    Raises:
        InputError: An unknown optimizer, precision or device, or arguments that contradict each other.

    Example:
        >>> model, images = nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8)
        >>> setup = TrainingSetup(optimizer="sgd", precision="bf16-mixed")
        >>> trained = setup.prepare(model)
        >>> optimizer = setup.make_optimizer(trained)
        >>> setup.run_step(trained, setup.example_batch(images), optimizer).shape
        torch.Size([])
    """

    loss_fn: Loss | None = None
    step: Step | None = None
    batch: Any = field(default=None, repr=False, compare=False)
    optimizer: str | MakeOptimizer = "adamw"
    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    threads: Count | None = None
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.precision, str):
            object.__setattr__(self, "precision", _LIGHTNING.get(self.precision, self.precision))
        require_fields(self)
        if not callable(self.optimizer):
            _check_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.loss_fn is not None and self.step is not None:
            hint = "step computes the loss itself"
            raise InputError("TrainingSetup", "both loss_fn and step are given: give only one", hint=hint)
        if self.device is not None:
            object.__setattr__(self, "device", _device(self.device))

    def example_batch(self, example_inputs: Any = None) -> Any:
        """The example batch; if none was given, the example inputs of the model without targets.

        Raises:
            InputError: The loss needs more than that.
        """
        if self.batch is not None:
            return self.batch
        if self.loss_fn is None and self.step is None:
            return example_inputs, None
        expected = "the batch that step takes" if self.step else "a pair (inputs, targets)"
        raise InputError("TrainingSetup: batch", got="None", expected=f"an example of {expected}, for the loss")

    def device_of(self, model: nn.Module) -> torch.device:
        """Where a model is trained."""
        if isinstance(self.device, torch.device):
            return self.device
        return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model made ready for training, in place: device, precision, memory format, training mode.

        The result is another module, around the same one, only if it is compiled.
        """
        model.to(self.device_of(model), torch.bfloat16 if self.precision == "bfloat16" else None)
        if self.channels_last:
            to_channels_last(model)
        model.train()
        return torch.compile(model) if self.compile else model  # type: ignore[return-value]

    def prepare_batch(self, batch: Any, device: torch.device) -> Any:
        """The batch on a device and in the precision of the training."""
        dtype = torch.bfloat16 if self.precision == "bfloat16" else None
        return tree_map_only(Tensor, lambda part: part.to(device, dtype if part.is_floating_point() else None), batch)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """A new optimizer of a model's parameters."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return self.optimizer(trained) if callable(self.optimizer) else OPTIMIZERS[self.optimizer](trained, lr=1e-3)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a batch, as it is computed in the forward part of a training step.

        Raises:
            InputError: It is no scalar tensor that depends on the weights, or the batch is no pair.
        """
        with self.autocast(self.device_of(model)):
            loss = (self.step or as_step(self.loss_fn or _mean_square))(model, batch)
        return check_loss(loss, "loss")

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the forward part of a step runs on a device."""
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

    def run_step(self, model: nn.Module, batch: Any, optimizer: Optimizer) -> Tensor:
        """Take one training step: forward, backward and optimizer. Returns the loss, which is not waited for.

        Args:
            model: A model from `prepare`.
            batch: A batch on the model's device.
            optimizer: Its optimizer, from `make_optimizer`.
        """
        optimizer.zero_grad(set_to_none=True)
        loss = self.loss(model, batch)
        if self.precision != "16-mixed":
            loss.backward()
            optimizer.step()
            return loss.detach()
        # With this scale no step is skipped on account of infinite gradients: every one takes its full time.
        scaler = torch.amp.GradScaler(loss.device.type, init_scale=1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    @contextmanager
    def limit_threads(self) -> Iterator[None]:
        """Use `threads` threads on the CPU, and as many as before afterwards."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def key(self, device: torch.device) -> dict[str, str | int | bool]:
        """What measurements with this setup on a device depend on, as JSON data: equal keys, comparable results."""
        with self.limit_threads():
            return {
                "device": hardware(device),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "precision": self.precision,
                "channels_last": self.channels_last,
                "compile": self.compile,
                "optimizer": _name(self.optimizer),
                "loss": _name(self.step or self.loss_fn or "mean square"),
            }


def as_step(loss_fn: Loss | None) -> Step:
    """The usual step: call the model on the inputs, and the loss on its outputs and the targets.

    Raises:
        InputError: There is no loss; when the step is called, the batch is no pair.
    """
    if loss_fn is None:
        raise InputError("loss_fn", got="None", expected="a function of (outputs, targets)", hint="or give step=")

    def step(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            hint = "for other batches give step=, a function of (model, batch) that returns the loss"
            raise InputError("batch", got=describe(batch), expected="a pair (inputs, targets)", hint=hint)
        inputs, targets = batch
        loss: Tensor = loss_fn(call_model(model, inputs), targets)
        return loss

    return step


def check_loss(loss: Any, where: str) -> Tensor:
    """The loss as a scalar tensor.

    Raises:
        InputError: It is not a tensor with one real element, or does not depend on the model's weights.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        hint = "reduce it by a mean or a sum"
        raise InputError(where, got=describe(loss), expected="a tensor with one element", hint=hint)
    if loss.is_complex():
        hint = "take its absolute value or its real part"
        raise InputError(where, got="a complex number", expected="a real one", hint=hint)
    if not loss.requires_grad:
        hint = "compute it without torch.no_grad(), .detach() or .item()"
        raise InputError(where, "it does not depend on the model's weights", hint=hint)
    return loss.reshape(())


def to_channels_last(model: nn.Module) -> None:
    """Put the weights of a model's convolutions into channels-last memory format; activations follow."""
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    convert_conv3d_weight_memory_format(model, torch.channels_last_3d)


def _mean_square(outputs: Any, _: Any) -> Tensor:
    """A loss of any outputs that needs no targets."""
    found = [output for output in tensors_in(outputs) if output.is_floating_point()]
    if not found:
        hint = "give loss_fn= or step="
        raise InputError("loss", got=describe(outputs), expected="outputs with a floating-point tensor", hint=hint)
    return torch.stack([output.float().square().mean() for output in found]).sum()


def _check_name(what: str, name: Any, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(f"TrainingSetup: {what}", f"{name!r:.60} is unknown", hint=nearest(str(name), known))


def _device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        hint = "for example cpu, cuda or cuda:1"
        raise InputError("TrainingSetup: device", f"{describe(device)} is not a device of torch", hint=hint) from error


def _name(what: Any) -> str:
    """Name of a function or class, or the text itself."""
    return what if isinstance(what, str) else getattr(what, "__qualname__", type(what).__qualname__)
