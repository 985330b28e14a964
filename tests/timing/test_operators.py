"""From records at some widths to operators at any widths."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import ranp
from helpers.networks import CASES
from ranp.costs.sizes import SizeArray, distinct_axes, sizes_at
from ranp.graph import ChannelGraph
from ranp.models import MobileNetV2, UNet3D
from ranp.timing import StepRecord, StepTimer, Stopwatch, sample_widths
from ranp.timing._operators import _changes, step_operators

NETWORKS = {
    "U-Net": (lambda: UNet3D(1, 2, 8, levels=3), (2, 1, 8, 8, 8)),
    "MobileNetV2": (MobileNetV2, (2, 3, 2, 16, 16)),
    "transposed, grouped, linear": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 12, 3, padding=1),
            nn.GroupNorm(4, 12),
            nn.Conv3d(12, 16, 3, groups=4),
            nn.PReLU(16),
            nn.ConvTranspose3d(16, 6, 2, stride=2),
            nn.InstanceNorm3d(6, affine=True),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(6, 9),
            nn.Linear(9, 2),
        ),
        (2, 1, 6, 6, 6),
    ),
}


def records_at(timer: StepTimer, widths: list[np.ndarray]) -> list[StepRecord]:
    found = []
    for each in widths:
        step = timer._step(each, timer.setup)
        step()
        found.append(Stopwatch(torch.device("cpu")).recorded(step))
    return found


def axes_at(graph: ChannelGraph, widths: list[np.ndarray]) -> np.ndarray:
    return np.stack([sizes_at(distinct_axes(graph.costs.axes), each) for each in widths])


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_are_right_at_widths_that_were_not_recorded(name: str) -> None:
    """What the operators have to do there is recorded as well, and compared."""
    build, shape = NETWORKS[name]
    model, x = build(), torch.randn(shape)
    graph = ranp.trace(model, x)
    timer = StepTimer(model, graph, x)
    *seen, new = sample_widths(graph, 6)
    *records, expected = records_at(timer, [*seen, new])
    operators, seconds = step_operators(records, axes_at(graph, seen), torch.device("cpu"))
    assert seconds.shape == (len(operators), len(seen))
    together = enumerate(zip(*(each.operators for each in records), strict=True))
    varying = {place for place, same in together if len({operator.numbers for operator in same}) > 1}
    assert {place for each in operators for place in each.positions} == varying
    (at_new,) = axes_at(graph, [new])
    for each in operators:
        run = [expected.operators[place] for place in each.positions]
        assert SizeArray(each.volume).at(at_new).sum() == sum(sum(operator.volumes) for operator in run)
        assert SizeArray([each.inputs]).at(at_new) == run[0].inputs
        assert SizeArray([each.outputs]).at(at_new) == run[0].outputs
    for number, record in enumerate(records):
        assert seconds[:, number].sum() == pytest.approx(sum(record.seconds[place] for place in varying))


# With some widths, torch or the network runs other operators, whose times are then a constant part of the step.
LEFT_OUT = {
    "dot_product_attention",
    "grouped_query_attention",
    "multi_query_attention",
    "one_channel_and_others",
    "partial_convolution_by_slices",
}


@pytest.mark.parametrize("name", sorted(CASES.keys() - LEFT_OUT))
def test_every_small_network_is_understood(name: str) -> None:
    """Operators that are left out would be taken for a constant part of the step."""
    case = CASES[name]
    model, inputs = case.build(), case.inputs()
    graph = ranp.trace(model, inputs)
    timer = StepTimer(model, graph, inputs)
    widths = sample_widths(graph, 5)
    records = records_at(timer, widths)
    operators, _ = step_operators(records, axes_at(graph, widths), torch.device("cpu"))
    assert operators
    missing = set(range(len(records[0].operators))) - {place for each in operators for place in each.positions}
    for place in missing:
        same = {record.operators[place].numbers for record in records if len(record.operators) > place}
        assert len(same) == 1, records[0].operators[place]


def test_operators_that_ran_at_some_widths_only_are_left_out() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 40, 3), nn.Conv2d(40, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            # Tracing must not notice.
            return self.last(y.sigmoid() if y.is_meta or y.shape[1] > 20 else y.relu())

    model, x = Chooses(), torch.randn(1, 1, 8, 8)
    graph = ranp.trace(model, x)
    widths = [np.array([width]) for width in (40, 30, 18, 9)]
    records = records_at(StepTimer(model, graph, x), widths)
    operators, _ = step_operators(records, axes_at(graph, widths), torch.device("cpu"))
    names = {records[0].operators[place].name.split(".")[1] for each in operators for place in each.positions}
    assert "convolution" in names
    assert "convolution_backward" in names
    assert not {"sigmoid", "relu"} & names


def test_the_implementation_of_a_convolution_depends_on_its_size() -> None:
    """On the CPU, torch passes single samples to oneDNN only from a certain size on."""
    model, x = nn.Sequential(nn.Conv3d(1, 64, 3), nn.Conv3d(64, 2, 3)), torch.randn(1, 1, 26, 26, 26)
    graph = ranp.trace(model, x)
    widths = [np.array([width]) for width in (64, 50, 31, 9)]
    records = records_at(StepTimer(model, graph, x), widths)
    operators, _ = step_operators(records, axes_at(graph, widths), torch.device("cpu"))
    (chosen,) = {
        each.families for each in operators if len(each.families) > 1 and "backward" not in each.families[0][1]
    }
    (_, first), (start, second) = chosen
    assert first.rpartition("|")[0] == second.rpartition("|")[0]
    for channels in (start - 1, start):
        source, weight = torch.zeros(1, channels, 24, 24, 24), torch.zeros(2, channels, 3, 3, 3)
        found = torch._C._select_conv_backend(source, weight, None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1)
        assert str(found) == (second if channels == start else first).rpartition("|")[2]


@given(st.lists(st.integers(1, 60), max_size=3), st.integers(1, 60))
def test_all_changes_of_a_monotonic_function_are_found(steps: list[int], high: int) -> None:
    def value(number: int) -> str:
        return str(sum(number >= step for step in steps))

    found = dict(_changes(value, 1, high))
    for number in range(1, high + 1):
        assert found[max(start for start in found if start <= number)] == value(number)
