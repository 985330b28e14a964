"""What is recorded of a step: operators that compute something, and how much."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ranp.timing import CpuClock, Recorded, StepRecorder


def record(model: nn.Module, x: Tensor) -> list[Recorded]:
    recorder = StepRecorder(CpuClock())
    with recorder:
        model(x).sum().backward()
    assert len(recorder.seconds()) == len(recorder.operators)
    assert min(recorder.seconds()) > 0
    return recorder.operators


@pytest.mark.parametrize(
    ("layer", "load"),
    [
        (nn.Conv3d(6, 8, 3), (2 * 3**3, 6, 8)),
        (nn.Conv3d(6, 8, 3, stride=2, padding=1), (2 * 3**3, 6, 8)),
        (nn.Conv3d(6, 8, 3, groups=2), (2 * 2 * 3**3, 3, 4)),
        (nn.Conv3d(6, 6, 3, groups=6), (2 * 6 * 3**3, 1, 1)),
        (nn.ConvTranspose3d(6, 8, 2, stride=2), (2 * 5**3, 6, 8)),
        (nn.ConvTranspose3d(6, 8, 2, groups=2), (2 * 2 * 5**3, 3, 4)),
    ],
    ids=["plain", "strided", "grouped", "depthwise", "transposed", "transposed and grouped"],
)
def test_a_convolution_multiplies_channels_at_positions(layer: nn.Module, load: tuple[int, int, int]) -> None:
    x = torch.randn(2, 6, 5, 5, 5, requires_grad=True)
    found = {operator.name: operator for operator in record(layer, x)}
    for name in ("aten.convolution.default", "aten.convolution_backward.default"):
        assert found[name].numbers == load
        positions, inputs, outputs = load
        # Multiply-adds per position and channel of a kernel of that size.
        kernel = torch.tensor(next(layer.parameters()).shape[2:]).prod()
        assert positions * inputs * outputs * kernel == _macs(layer, x)


def _macs(layer: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        layer(x)
    return counter.get_total_flops() // 2


def test_a_linear_layer_is_a_matrix_product() -> None:
    found = record(nn.Linear(5, 7), torch.randn(4, 5, requires_grad=True))
    products = [operator.numbers for operator in found if operator.name in ("aten.addmm.default", "aten.mm.default")]
    assert sorted(products) == sorted([(4, 5, 7), (4, 7, 5), (7, 4, 5)])


def test_other_operators_count_elements_and_views_are_left_out() -> None:
    found = record(nn.Sequential(nn.Flatten(), nn.ReLU()), torch.randn(2, 3, 4, requires_grad=True))
    names = [operator.name for operator in found]
    assert "aten.relu.default" in names
    assert not {"aten.view.default", "aten._unsafe_view.default", "aten.expand.default", "aten.detach.default"} & {
        *names
    }
    relu = found[names.index("aten.relu.default")]
    assert (relu.volumes, relu.inputs, relu.outputs) == ((24, 24), 1, 1)


def test_layouts_are_told_apart() -> None:
    x = torch.randn(2, 4, 3, 3, 3)
    plain = record(nn.Conv3d(4, 5, 1), x)[0]
    last = record(
        nn.Conv3d(4, 5, 1).to(memory_format=torch.channels_last_3d), x.to(memory_format=torch.channels_last_3d)
    )
    assert plain.layouts[0] == ""
    assert last[0].layouts[0] == "02341"
    assert plain.key == last[0].key
    gaps = record(nn.ReLU(), torch.randn(2, 8, 3, requires_grad=True)[:, ::2])[0]
    assert gaps.layouts[0] == "~"


def test_errors_of_the_step_come_through() -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        record(nn.Conv3d(4, 5, 1), torch.randn(2, 3, 4, 4, 4))
