"""The published tables' own way of counting, kept apart from the exact cost formulas.

Source: Xu et al., RANP, 3DV 2020. It looks at leaf modules only, counts four operations per element
of a batch norm, none for activations, max pooling and upsampling, and calls the outputs of all leaf
modules "memory".
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ranp.errors import InputError

BYTES = 4
MIB = 2**20


@dataclass(frozen=True)
class PublishedResources:
    """What one row of the published tables says of a network.

    Attributes:
        params_mb: all parameters, norms included, at 4 bytes, in units of 2**20 bytes.
        gflops: multiply-adds of one forward pass at batch 1, in units of 1e9.
        memory_mb: outputs of all leaf modules at 4 bytes, in units of 2**20 bytes.
    """

    params_mb: float
    gflops: float
    memory_mb: float


def published_resources(model: nn.Module, input_shape: Sequence[int]) -> PublishedResources:
    """Count a network's resources as the published tables do.

    Nothing is computed and no memory is taken: parameters and the input stand on the meta device. The
    model keeps its parameters, buffers, mode and hooks. A module that runs twice counts twice.

    Args:
        model: the network; its leaf modules must be of the kinds of the published networks.
        input_shape: `(1, C, D, H, W)`.

    Raises:
        InputError: a leaf module whose cost the published convention does not define.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.ReLU())
        >>> count = published_resources(network, (1, 1, 8, 8, 8))
        >>> round(count.gflops * 1e9), round(count.memory_mb * 2**20)
        (32768, 12288)
    """
    macs = elements = 0

    def count(name: str, module: nn.Module, output: Tensor) -> None:
        nonlocal macs, elements
        macs += _macs(name, module, output)
        elements += output.numel()

    named = (*model.named_parameters(), *model.named_buffers())
    tensors = {name: torch.empty_like(tensor, device="meta") for name, tensor in named}
    with _leaf_hooks(model, count), _eval_mode(model), torch.no_grad(), torch.device("meta"):
        functional_call(model, tensors, (torch.empty(tuple(input_shape)),))
    params = sum(parameter.numel() for parameter in model.parameters())
    return PublishedResources(params * BYTES / MIB, macs / 1e9, elements * BYTES / MIB)


def _macs(name: str, module: nn.Module, output: Tensor) -> int:
    for kinds, rule in _RULES.items():
        if isinstance(module, kinds):
            return rule(module, output)
    known = ", ".join(kind.__name__ for kinds in _RULES for kind in kinds)
    raise InputError(
        f"module {name!r}",
        got=type(module).__name__,
        expected=f"a kind that the published tables count: {known}",
    )


def _convolution(module: nn.Conv3d, output: Tensor) -> int:
    per_output = prod(module.weight.shape[1:])  # C_in / groups x kernel volume
    return output.numel() * (per_output + (module.bias is not None))


def _linear(module: nn.Linear, output: Tensor) -> int:
    return output.numel() * (2 * module.in_features - 1 + (module.bias is not None))


def _average_pooling(module: nn.AvgPool3d, output: Tensor) -> int:
    kernel = module.kernel_size
    volume = kernel ** (output.dim() - 2) if isinstance(kernel, int) else prod(kernel)
    return output.numel() * (volume + 1)


def _batch_norm(module: nn.Module, output: Tensor) -> int:
    return 4 * output.numel()


def _upsampling(module: nn.Upsample, output: Tensor) -> int:
    if module.mode != "nearest":
        raise InputError("Upsample", got=f"mode {module.mode!r}", expected="nearest, as in the published networks")
    return 0


def _free(module: nn.Module, output: Tensor) -> int:
    return 0


_RULES: dict[tuple[type[nn.Module], ...], Callable[..., int]] = {
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    (nn.Linear,): _linear,
    (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d): _average_pooling,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d): _batch_norm,
    (nn.Upsample,): _upsampling,
    (nn.ReLU, nn.ReLU6, nn.Softmax, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Dropout): _free,
}


@contextmanager
def _leaf_hooks(model: nn.Module, count: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Call `count(name, module, output)` after every leaf module; the hooks go in any case."""
    handles = []

    def watch(name: str, leaf: nn.Module) -> None:
        handles.append(leaf.register_forward_hook(lambda module, _, output: count(name, module, output)))

    try:
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                watch(name, module)
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Batch norm refuses single values in training mode; every module's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
