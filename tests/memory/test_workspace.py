"""What convolutions allocate on the CPU, by hand."""

import pytest
import torch
from torch import nn

from ranp.memory import predict_memory


def _workspace(layer: nn.Module, *shape: int, phase: str) -> int:
    model = nn.Sequential(nn.Conv3d(shape[1], shape[1], 1, groups=shape[1]), layer)
    found = predict_memory(model, torch.zeros(shape)).moments
    return next(
        one.workspace_bytes for one in found if one.path == "1" and one.phase == phase and "conv" in one.operator
    )


def test_narrow_single_samples_are_written_into_columns() -> None:
    layer = nn.Conv3d(4, 6, 3, padding=1)
    for phase in ("forward", "backward"):
        assert _workspace(layer, 1, 4, 6, 6, 6, phase=phase) == 4 * 27 * 6**3 * 4


def test_a_kernel_of_one_voxel_needs_columns_for_the_gradient_alone() -> None:
    layer = nn.Conv3d(4, 6, 1)
    assert _workspace(layer, 1, 4, 6, 6, 6, phase="forward") == 0
    assert _workspace(layer, 1, 4, 6, 6, 6, phase="backward") == 4 * 6**3 * 4


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
def test_others_are_copied_into_blocks_of_channels() -> None:
    layer = nn.Conv3d(20, 5, 3, 2, 1)
    assert _workspace(layer, 2, 20, 8, 8, 8, phase="backward") == 2 * (32 * 8**3 + 8 * 4**3) * 4


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
def test_channels_last_needs_no_copies() -> None:
    layer = nn.Conv3d(20, 5, 3, 2, 1).to(memory_format=torch.channels_last_3d)
    assert _workspace(layer, 2, 20, 8, 8, 8, phase="backward") == 0


def test_transposed_convolutions() -> None:
    layer = nn.ConvTranspose3d(4, 3, 2, 2, output_padding=1, dilation=2)
    assert _workspace(layer, 1, 4, 5, 5, 5, phase="forward") == 3 * 8 * 5**3 * 4
