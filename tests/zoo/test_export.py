"""Pruned networks go where other networks go: `torch.export`, ONNX, `torch.compile`; large ones in `make test-zoo`."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import ranp
from families import FAMILIES
from helpers.oracles import random_plan
from ranp.module_utils import call_model, tensors_in

SAMPLE = (
    ("MONAI", "UNet 3D, residual"),
    ("MONAI", "SEResNet50 2D"),
    ("MONAI", "EfficientNetBN 2D"),
    ("nnU-Net", "PlainConvUNet 3D, deep supervision"),
)
pytestmark = pytest.mark.filterwarnings("ignore:.*")  # exporters warn of their own future


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            (small, *named), id=f"{'small ' if small else ''}{named[1]}", marks=() if small else pytest.mark.zoo
        )
        for small in (True, False)
        for named in SAMPLE
    ],
)
def pruned(request: pytest.FixtureRequest) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    small, package, name = request.param
    family = next(entry for entry in FAMILIES if entry.name == package)
    members = family.small_members if small and family.small_members else family.members
    member = next(entry for entry in members() if entry.name == name)
    model, inputs = member.build().eval(), member.inputs()
    return ranp.apply(model, random_plan(ranp.trace(model, inputs), 0, 0.2)), inputs


def outputs(model: Any, inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        return tensors_in(call_model(model, inputs))


def assert_same(found: list[Any], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(a), b, rtol=1e-3, atol=1e-4)


def test_torch_export(pruned: tuple[nn.Module, Any]) -> None:
    model, inputs = pruned
    assert_same(outputs(torch.export.export(model, inputs).module(), inputs), outputs(model, inputs))


def test_onnx(pruned: tuple[nn.Module, Any], tmp_path: Path) -> None:
    model, inputs = pruned
    torch.onnx.export(model, inputs, str(tmp_path / "model.onnx"), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, {name: np.asarray(tensor) for name, tensor in zip(names, inputs, strict=True)})
    assert_same(found, outputs(model, inputs))


def test_torch_compile(pruned: tuple[nn.Module, Any]) -> None:
    model, inputs = pruned
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(outputs(compiled, inputs), outputs(model, inputs))


@pytest.mark.zoo
def test_torch_compile_down_to_code() -> None:
    model = nn.Sequential(
        nn.Conv3d(1, 16, 3), nn.InstanceNorm3d(16, affine=True), nn.ReLU(), nn.Conv3d(16, 2, 3)
    ).eval()
    inputs = (torch.randn(1, 1, 12, 12, 12),)
    small = ranp.apply(model, random_plan(ranp.trace(model, inputs), 0, 0.2))
    assert_same(outputs(torch.compile(small), inputs), outputs(small, inputs))
