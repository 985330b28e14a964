"""What convolutions allocate on the CPU while they run, which no tensor shows.

torch computes some convolutions as a matrix product, for which it writes every window of the input into a column. It
passes the others to oneDNN, which copies activations into a layout with blocks of channels, unless they are in
channels-last memory format.
"""

import math
from typing import Any

import torch

_ATEN = torch.ops.aten
# oneDNN computes lower precisions in this one where the processor does not have them.
_FLOAT_BYTES = 4


def workspace_bytes(func: Any, args: Any, out: Any) -> int:
    """Estimate of the bytes that an operator allocates on the CPU and frees before it returns."""
    if func is _ATEN.convolution.default:
        (source, weight, bias, *settings), output = args, out
    elif func is _ATEN.convolution_backward.default:
        (output, source, weight, _, *settings, _), bias = args, None
    else:
        return 0
    kernel, transposed, groups = weight.shape[2:], settings[3], settings[-1]
    inputs, outputs = math.prod(source.shape[2:]), math.prod(output.shape[2:])
    backend = str(torch._C._select_conv_backend(source, weight, bias, *settings))
    if "Slow" in backend:
        if max(kernel) == 1:
            return 0 if output is out else int(source.nbytes)
        channels, windows = (output.shape[1], inputs) if transposed else (source.shape[1], outputs)
        samples = 1 if transposed or "Dilated" in backend else source.shape[0]
        return int(samples * channels // groups * math.prod(kernel) * windows * source.element_size())
    if not (source.is_contiguous() and weight.is_contiguous()):
        return 0
    blocked = _in_blocks(source.shape[1]) * inputs + _in_blocks(output.shape[1]) * outputs
    return int(source.shape[0] * blocked * _FLOAT_BYTES)


def _in_blocks(channels: int) -> int:
    """Channels in blocks of 8 or, where there are more, of 16."""
    block = 8 if channels <= 8 else 16
    return -(-channels // block) * block
