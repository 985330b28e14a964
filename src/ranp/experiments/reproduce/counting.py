"""Resources as the published tables count them, which differs from the exact costs of `ranp.trace`.

Source: Xu et al., RANP, 3DV 2020. The tables count leaf modules only: four operations per element of a batch norm,
none for activations, max pooling and upsampling; the outputs of all leaf modules are called "memory".
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ranp.errors import InputError
from ranp.module_utils import preserve_state


@dataclass(frozen=True)
class PublishedResources:
    """Resources of a network, as in one row of the published tables.

    Attributes:
        params_mb: All parameters, norms included, at 4 bytes, in units of 2**20 bytes.
        gflops: Multiply-adds of one forward pass at batch size 1, in units of 1e9.
        memory_mb: Outputs of all leaf modules at 4 bytes, in units of 2**20 bytes.
    """

    params_mb: float
    gflops: float
    memory_mb: float


def published_resources(model: nn.Module, input_shape: Sequence[int]) -> PublishedResources:
    """Count the resources of a network as the published tables do.

    Parameters and input are on the meta device: nothing is computed and no memory is allocated. The model is left
    unchanged. A module that is called twice counts twice.

    Args:
        model: The network; its leaf modules must be of the types of the published networks.
        input_shape: Shape of the input, `(1, C, D, H, W)`.

    Raises:
        InputError: The published tables do not define the cost of a leaf module.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.ReLU())
        >>> count = published_resources(network, (1, 1, 8, 8, 8))
        >>> round(count.gflops * 1e9), round(count.memory_mb * 2**20)
        (32768, 12288)
    """
    macs = elements = 0

    def count(name: str, module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal macs, elements
        macs += _macs(name, module, output)
        elements += output.numel()

    named = (*model.named_parameters(), *model.named_buffers())
    tensors = {name: torch.empty_like(tensor, device="meta") for name, tensor in named}
    with ExitStack() as hooks, preserve_state(model, values=False), torch.no_grad(), torch.device("meta"):
        for name, module in model.named_modules():
            if not list(module.children()):
                hooks.enter_context(module.register_forward_hook(partial(count, name)))
        model.eval()  # Batch norm refuses single values in training mode.
        functional_call(model, tensors, (torch.empty(tuple(input_shape)),))
    params = sum(parameter.numel() for parameter in model.parameters())
    return PublishedResources(params * 4 / 2**20, macs / 1e9, elements * 4 / 2**20)


def _macs(name: str, module: nn.Module, output: Tensor) -> int:
    for types, rule in _RULES.items():
        if isinstance(module, types):
            return rule(module, output)
    known = ", ".join(each.__name__ for types in _RULES for each in types)
    raise InputError(f"module {name!r}", f"the published tables count {known}, not {type(module).__name__}")


def _convolution(module: nn.Conv3d, output: Tensor) -> int:
    per_output = prod(module.weight.shape[1:])  # C_in / groups x kernel volume
    return output.numel() * (per_output + (module.bias is not None))


def _linear(module: nn.Linear, output: Tensor) -> int:
    return output.numel() * (2 * module.in_features - 1 + (module.bias is not None))


def _average_pooling(module: nn.AvgPool3d, output: Tensor) -> int:
    kernel = module.kernel_size
    volume = kernel ** (output.dim() - 2) if isinstance(kernel, int) else prod(kernel)
    return output.numel() * (volume + 1)


def _upsampling(module: nn.Upsample, output: Tensor) -> int:
    if module.mode != "nearest":
        raise InputError("Upsample", f"the published tables only count the mode nearest, not {module.mode!r}")
    return 0


_RULES: dict[tuple[type[nn.Module], ...], Callable[..., int]] = {
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    (nn.Linear,): _linear,
    (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d): _average_pooling,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d): lambda module, output: 4 * output.numel(),
    (nn.Upsample,): _upsampling,
    (nn.ReLU, nn.ReLU6, nn.Softmax, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Dropout): lambda module, output: 0,
}
