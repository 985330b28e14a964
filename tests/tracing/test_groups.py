"""What tracing finds: groups, layers and unprunable channels, against what was derived by hand."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ranp
from helpers.networks import CASES, Net, image
from ranp.costs.measure import reset_peak_memory, resident_bytes
from ranp.errors import InputError, TraceError


@pytest.mark.parametrize("name", CASES)
def test_groups_are_those_derived_by_hand(name: str) -> None:
    case = CASES[name]
    graph = ranp.trace(case.build(), case.inputs())
    assert {group.name: group.width for group in graph.groups} == dict(case.groups)


@pytest.mark.parametrize("name", CASES)
def test_unprunable_channels_are_named(name: str) -> None:
    case = CASES[name]
    unprunable = [entry for entry in ranp.trace(case.build(), case.inputs()).unprunable if entry.operator != "output"]
    assert {entry.operator for entry in unprunable} == set(case.unprunable)
    for entry in unprunable:
        assert case.unprunable[entry.operator] in entry.reason
        assert entry.channels > 0


@pytest.mark.parametrize("name", ["unet_of_odd_size", "instance_norm_affine", "residual_with_projection"])
def test_groups_depend_neither_on_the_batch_nor_on_the_size(name: str) -> None:
    case = CASES[name]
    small = case.inputs()
    large = torch.zeros(5, small.shape[1], *(2 * side + 3 for side in small.shape[2:]))
    graphs = [ranp.trace(case.build(), inputs) for inputs in (small, large)]
    members = [
        [[(m.parameter, m.dim, m.positions.tolist(), m.reads) for m in group.members] for group in graph.groups]
        for graph in graphs
    ]
    assert members[0] == members[1]


def test_members_of_a_flattened_group() -> None:
    case = CASES["linear_after_flatten"]
    group = ranp.trace(case.build(), case.inputs()).groups[0]
    members = {(member.parameter, member.dim): member for member in group.members}
    assert set(members) == {("body.weight", 0), ("body.bias", 0), ("hidden.weight", 1)}
    assert np.array_equal(members["hidden.weight", 1].positions, np.arange(36).reshape(4, 9))
    assert [name for name, member in members.items() if member.reads] == [("hidden.weight", 1)]


def test_layers_of_a_residual_network() -> None:
    case = CASES["residual"]
    graph = ranp.trace(case.build(), case.inputs())
    found = [(layer.name, layer.width, layer.macs, layer.output_elements) for layer in graph.layers]
    # Batch 2 and 7 x 7 positions: multiply-adds are outputs times inputs times 9 (or 1) times 98.
    assert found == [
        ("stem", 6, 6 * 3 * 9 * 98, 6 * 98),
        ("inner", 5, 5 * 6 * 9 * 98, 5 * 98),
        ("outer", 6, 6 * 5 * 9 * 98, 6 * 98),
        ("head", 2, 2 * 6 * 98, 2 * 98),
    ]
    assert [(layer.prunable, layer.final) for layer in graph.layers] == [(True, False)] * 3 + [(False, True)]
    stem, inner, outer, head = (layer.channels.tolist() for layer in graph.layers)
    assert stem == outer == list(range(6))
    assert inner == list(range(6, 11))
    assert head == [-1, -1]
    # A channel of the sum stands for a neuron of `stem` and one of `outer`.
    assert graph.neurons.tolist() == [2] * 6 + [1] * 5
    assert graph.cost().neurons == 6 + 5 + 6 + 2


def test_a_layer_that_runs_twice_costs_twice() -> None:
    case = CASES["shared_layer"]
    graph = ranp.trace(case.build(), case.inputs())
    shared = next(layer for layer in graph.layers if layer.name == "shared")
    assert (shared.macs, shared.output_elements) == (2 * 4 * 4 * 9 * 98, 2 * 4 * 98)


def test_layers_of_grouped_and_transposed_convolutions() -> None:
    case = CASES["transposed_in_few_blocks"]
    graph = ranp.trace(case.build(), case.inputs())
    up = next(layer for layer in graph.layers if layer.name == "up")
    # 2 x 36 input positions, 2 x 2 x 2 taps, 8 inputs, 3 outputs per block.
    assert (up.out_dim, up.blocks, up.width, up.macs) == (1, 2, 6, 72 * 8 * 8 * 3)


def test_share_of_frozen_multiply_adds() -> None:
    case = CASES["operator_without_a_rule"]
    graph = ranp.trace(case.build(), case.inputs())
    found = next(entry for entry in graph.unprunable if entry.operator == "linalg_matrix_exp")
    total = 3 * 4 + 4 * 5 + 5 * 2
    assert found.channels == 4
    assert found.macs_share == pytest.approx(3 * 4 / total)


def test_the_module_of_a_frozen_operator_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.logcumsumexp(1)

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.ReLU(), Odd()), nn.Conv2d(4, 2, 1))
    (frozen,) = [
        entry for entry in ranp.trace(model, image(1, 3, 4, 4)()).unprunable if entry.operator == "logcumsumexp"
    ]
    assert frozen.path == "1.1"


def test_a_number_written_down_is_found_in_a_narrow_group() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.c(net.b(net.a(x)).relu())
        return net.head(y.reshape(2, 3, 49).reshape(2, 3, 7, 7))

    model = Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(4, 3, 1), head=nn.Conv2d(3, 2, 1))
    assert {group.name for group in ranp.trace(model, image(2, 3, 7, 7)()).groups} == {"a", "b"}


def test_tracing_allocates_no_activations() -> None:
    model = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.InstanceNorm3d(16), nn.ReLU(), nn.Conv3d(16, 2, 1))
    # 2^30 voxels of one real number: the first activation alone would take 64 GiB.
    inputs = torch.zeros(1).expand(1, 1, 1024, 1024, 1024)
    reset_peak_memory()
    before = resident_bytes(peak=True)
    graph = ranp.trace(model, inputs)
    grown = resident_bytes(peak=True) - before
    assert graph.cost().macs == 2**30 * (16 * 27 + 32)
    assert grown < 64 * 2**20, f"{grown} bytes"


def test_one_run_finds_all_operators_that_rely_on_a_width() -> None:
    runs = 0

    def run(net: Any, x: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        for conv in net.body:
            first, second = conv(x).split(4, 1)
            x = torch.cat([first.relu(), second], 1)
        return net.head(net.free(x).relu())

    body = nn.ModuleList([nn.Conv2d(3 if index == 0 else 8, 8, 1) for index in range(6)])
    model = Net(run, body=body, free=nn.Conv2d(8, 4, 1), head=nn.Conv2d(4, 2, 1))
    graph = ranp.trace(model, image(1, 3, 4, 4)())
    assert {group.name for group in graph.groups} == {"free"}
    assert {entry.operator for entry in graph.unprunable} == {"split", "output"}
    assert runs <= 8  # as it is, with fewer channels, and with fewer where they may be; not one for each operator


def test_an_error_that_a_forward_handles_does_not_confuse_paths() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        try:
            net.body(x[:, :2])
        except RuntimeError:
            y = net.body(x).flip(1)
        return net.head(y)

    model = Net(run, body=nn.Conv2d(3, 6, 3), head=nn.Conv2d(6, 2, 1))
    entries = {entry.operator: entry.path for entry in ranp.trace(model, image(2, 3, 7, 7)()).unprunable}
    assert entries["flip"] == ""


# -- what cannot be traced ---------------------------------------------------------------------------------------


def test_wrong_inputs_are_explained() -> None:
    with pytest.raises(TraceError, match="channels") as caught:
        ranp.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), torch.zeros(1, 5, 4, 4))
    assert "forward of 0" in str(caught.value)
    assert "example_inputs" in str(caught.value)
    with pytest.raises(InputError, match=r"^example_inputs: got 3; expected a tensor, a tuple"):
        ranp.trace(nn.Conv2d(3, 4, 1), 3)


def test_control_flow_on_values_is_explained() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.a(x)
        return net.b(y if float(y.mean()) > 0 else -y)

    with pytest.raises(TraceError, match=r"uses a value or shape that depends on the data.*move data-dependent"):
        ranp.trace(Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1)), image(1, 3, 4, 4)())


def test_scripted_modules_and_outputs_without_tensors_are_refused() -> None:
    with pytest.raises(TraceError, match="got str; expected tensors"):
        ranp.trace(Net(lambda net, x: "nothing"), image(1, 3, 4, 4)())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, in new versions of torch
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1)))
    with pytest.raises(TraceError, match="prune the module before scripting"):
        ranp.trace(scripted, image(1, 3, 4, 4)())
    with pytest.raises(TraceError, match="1: got RecursiveScriptModule; expected an eager"):
        ranp.trace(nn.Sequential(nn.Conv2d(3, 3, 1), scripted), image(1, 3, 4, 4)())


def test_exported_programs_and_strangers_are_refused() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval(), image(1, 3, 4, 4)()
    program: Any = torch.export.export(model, (inputs,))
    for stranger in (program, "unet", None):
        with pytest.raises(InputError, match=r"expected a Module; give the network itself, before .* exporting it"):
            ranp.trace(stranger, inputs)


def test_inputs_on_another_device_are_refused_unless_the_model_moves_them() -> None:
    layers = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(4, 2, 1)}
    elsewhere = image(1, 3, 4, 4)().to("meta")
    with pytest.raises(TraceError, match=r"forward of a: fails .*device.*check the shape, dtype and device"):
        ranp.trace(Net(lambda net, x: net.b(net.a(x)), **layers), elsewhere)
    moving = Net(lambda net, x: net.b(net.a(torch.zeros_like(x, device=net.a.weight.device))), **layers)
    assert [group.width for group in ranp.trace(moving, elsewhere).groups] == [4]


@pytest.mark.parametrize("shape", [(2, 4, 7, 7), (3,), (2, 3, 1, 1)])
def test_inputs_that_do_not_fit_are_refused_where_they_do_not(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        TraceError, match=r"^forward of 0: fails on the example inputs with RuntimeError: .*check the shape"
    ):
        ranp.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)), torch.zeros(shape))


# -- norms that mix channels -------------------------------------------------------------------------------------


def _mixing(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 2, 1))


MIXING = {
    "group norm of one block": lambda: nn.GroupNorm(1, 8),
    "group norm of few blocks": lambda: nn.GroupNorm(2, 8),
    "layer norm": lambda: nn.LayerNorm([8, 5, 5]),
}


@pytest.mark.parametrize("norm", MIXING)
def test_norms_that_mix_channels_are_marked(norm: str) -> None:
    graph = ranp.trace(_mixing(MIXING[norm]()), image(2, 3, 7, 7)())
    assert graph.has_cross_channel_norm
    # Equal counts per block are kept by coupling the same positions of both.
    assert [group.width for group in graph.groups] == [4 if "few" in norm else 8]
    assert not ranp.trace(_mixing(nn.GroupNorm(4, 8)), image(2, 3, 7, 7)()).has_cross_channel_norm
