"""Initializing weights."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ranp.arguments import Seed, checked
from ranp.errors import InputError
from ranp.module_utils import ModelWithValues

Weights: TypeAlias = Literal["keep", "glorot", "orthogonal"]

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@checked
def initialize(model: ModelWithValues, weights: Literal["glorot", "orthogonal"], seed: Seed) -> None:
    """Initialize the weights of all convolutions, linear layers and norms, in place.

    Layers: Glorot normal or orthogonal, biases zero. Norms: scales from N(1, 0.02), shifts zero, as in the published
    experiments (Xu et al., RANP, 3DV 2020). Draws happen on the CPU, so every device gets the same numbers.

    Args:
        model: The model.
        weights: `glorot` or `orthogonal`.
        seed: Seed; the global random number generators are not used.

    Raises:
        InputError: The initialization is unknown.

    Example:
        >>> model = nn.Conv2d(3, 8, 3)
        >>> initialize(model, "glorot", seed=0)
        >>> model.bias.abs().max().item()
        0.0
    """
    generator = torch.Generator().manual_seed(seed)
    draw = nn.init.xavier_normal_ if weights == "glorot" else nn.init.orthogonal_
    with torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, _LAYERS):
                _assign(path, module, draw(torch.empty(module.weight.shape), generator=generator))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, _NORMS) and module.weight is not None:
                module.weight.copy_(torch.normal(1.0, 0.02, module.weight.shape, generator=generator))
                if module.bias is not None:
                    module.bias.zero_()


def _assign(path: str, layer: nn.Module, weight: Tensor) -> None:
    """Give a layer its weight, through its parametrization if it has one."""
    if is_parametrized(layer, "weight"):
        layer.weight = weight.to(layer.weight)  # type: ignore[arg-type]
    elif "weight" in layer._parameters:
        layer.weight.copy_(weight)  # type: ignore[operator]
    else:
        raise InputError(
            f"weights at {path}",
            "the weight is computed before each forward pass, so it cannot be initialized",
            hint="use torch.nn.utils.parametrizations, or weights='keep'",
        )
