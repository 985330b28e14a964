"""Noise for verification: inputs and weights with which signals reach the output, and random numbers that are fixed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ranp.module_utils import DispatchMode, tensors_in

_NAMES = "rand normal uniform bernoulli exponential log_normal cauchy poisson multinomial geometric _standard_gamma"
_DRAWS = tuple(_NAMES.split())


class ConstantRandom(DispatchMode):
    """Fixes random numbers, of which a model of another width would draw others.

    Floating-point numbers of any shape are the same constant, whole numbers (the order of tokens, say) are drawn from
    the same state every time, and dropout passes everything on.

    Attributes:
        operators: Names of all operators that ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        self.operators.append(name)
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        if name == "rrelu_with_noise":
            args = (*args[:4], False)
        if not name.startswith(_DRAWS):
            return func(*args, **kwargs)
        if not func._schema.is_mutable:
            args = tree_map_only(Tensor, lambda tensor: tensor.nan_to_num(0.5), args)  # A probability may be missing.
        torch.manual_seed(0)
        out = func(*args, **kwargs)
        for tensor in tensors_in(out):
            if tensor.is_floating_point():
                tensor.fill_(0.5)
        return out


def noise_like(value: Any, side: int | None, dtype: torch.dtype | None) -> Any:
    """Inputs like the given ones: noise for floating-point tensors, cut to `side` per spatial dimension."""
    generator = torch.Generator().manual_seed(0)

    def like(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {key: like(entry) for key, entry in item.items()}
        if isinstance(item, (tuple, list)):
            return type(item)(like(entry) for entry in item)
        if not isinstance(item, Tensor):
            return item
        if side is not None and item.ndim >= 4:
            item = item[(slice(None), slice(None), *(slice(0, side),) * (item.ndim - 2))]
        if not item.is_floating_point():
            return item
        noise = torch.randn(item.shape, generator=generator, dtype=torch.float64)
        return noise.to(item.device, dtype or item.dtype)

    return like(value)


def rescale_weights(model: nn.Module) -> None:
    """Scale every weight so that signals keep their variance through a ReLU, and perturb every shift and scale."""
    generator = torch.Generator().manual_seed(0)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device, like.dtype)

    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.ndim < 2:
                parameter.add_(noise(parameter), alpha=0.1)
                continue
            if not parameter.any():
                parameter.copy_(noise(parameter))
            spread = parameter.square().mean().sqrt()
            parameter.mul_((2 / parameter[0].numel()) ** 0.5 / spread)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.add_(noise(module.running_mean), alpha=0.1)
