"""Drawing weights anew."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from ranp.errors import InputError, nearest

Weights: TypeAlias = Literal["keep", "glorot", "orthogonal"]

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def redraw(model: nn.Module, weights: Weights, seed: int) -> None:
    """Draw the weights of all convolutions, linear layers and norms anew, in place.

    Layers: Glorot normal or orthogonal, biases zero. Norms: scales from N(1, 0.02), shifts zero, as in the published
    experiments (Xu et al., RANP, 3DV 2020). Draws happen on the CPU, so every device gets the same numbers.

    Args:
        model: The model.
        weights: `glorot` or `orthogonal`.
        seed: Seed; the global random number generators are not used.

    Raises:
        InputError: An unknown way to draw.
    """
    if weights not in get_args(Weights) or weights == "keep":
        known = [name for name in get_args(Weights) if name != "keep"]
        raise InputError("weights", got=repr(weights), expected="a known way", hint=nearest(str(weights), known))
    generator = torch.Generator().manual_seed(seed)
    draw = nn.init.xavier_normal_ if weights == "glorot" else nn.init.orthogonal_
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _LAYERS):
                fresh = torch.empty(module.weight.shape)
                module.weight.copy_(draw(fresh, generator=generator))
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, _NORMS) and module.weight is not None:
                module.weight.copy_(torch.normal(1.0, 0.02, module.weight.shape, generator=generator))
                if module.bias is not None:
                    module.bias.zero_()
