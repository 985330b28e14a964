"""nnU-Net's plans give the network, batch and patch that nnU-Net would train."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ranp
from ranp.cli import app
from ranp.errors import ArtifactError, InputError
from ranp.integrations.nnunet_plans import read_planned_network

unet = pytest.importorskip("dynamic_network_architectures.architectures.unet", reason="needs nnU-Net's networks")

ARCHITECTURE: dict[str, Any] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        **{"n_stages": 3, "features_per_stage": [16, 32, 64], "conv_op": "torch.nn.modules.conv.Conv3d"},
        **{"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]},
        **{"n_conv_per_stage": [1, 1, 1], "n_conv_per_stage_decoder": [1, 1], "conv_bias": True},
        **{"norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"affine": True}},
        **{"dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU"},
        **{"nonlin_kwargs": {"inplace": True}},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
FULL = {"batch_size": 2, "patch_size": [8, 16, 16], "architecture": ARCHITECTURE}
LABELS: dict[str, Any] = {"background": 0, "one": 1, "two": 2}


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    return write(tmp_path, LABELS)


def write(folder: Path, labels: dict[str, Any]) -> Path:
    configurations = {"3d_fullres": FULL, "3d_small": {"inherits_from": "3d_fullres", "batch_size": 5}}
    facts = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels}
    (folder / "dataset.json").write_text(json.dumps(facts))
    path = folder / "nnUNetPlans.json"
    path.write_text(json.dumps({"dataset_name": "Dataset901_Balls", "configurations": configurations}))
    return path


def test_the_network_is_that_of_the_plans(plans: Path) -> None:
    state = torch.get_rng_state()
    found = read_planned_network(plans, "3d_fullres")
    assert torch.equal(state, torch.get_rng_state())
    kinds = {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "dropout_op": None, "nonlin": nn.LeakyReLU}
    arguments = {**ARCHITECTURE["arch_kwargs"], **kinds}
    same = unet.PlainConvUNet(input_channels=2, num_classes=3, deep_supervision=True, **arguments)
    assert repr(found.model) == repr(same)
    same.load_state_dict(found.model.state_dict())
    assert (found.dataset, found.inputs.shape, found.multiple) == ("Dataset901_Balls", (2, 2, 8, 16, 16), (2, 4, 4))
    outputs = found.model(found.inputs)
    assert [tuple(target.shape) for target in found.targets] == [(2, *output.shape[2:]) for output in outputs]


def test_a_configuration_inherits_from_another(plans: Path) -> None:
    assert read_planned_network(plans, "3d_small").inputs.shape == (5, 2, 8, 16, 16)


def test_outputs_of_labels_and_of_regions(tmp_path: Path) -> None:
    for labels, count in (
        ({**LABELS, "ignore": 3}, 3),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rest": 3, "ignore": 4}, 3),
    ):
        found = read_planned_network(write(tmp_path, labels), "3d_fullres")
        assert found.model(found.inputs)[0].shape[1] == count


def test_what_is_wrong_is_said(plans: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"nnUNetPlans\.json: has no configuration '3d_ful'; did you mean '3d_fullres'"
    ):
        read_planned_network(plans, "3d_ful")
    with pytest.raises(ArtifactError, match=r"none\.json: cannot be read .* give a file that nnU-Net wrote"):
        read_planned_network(tmp_path / "none.json", "3d_fullres")
    (tmp_path / "dataset.json").write_text('{"channel_names": {}}')
    with pytest.raises(ArtifactError, match=r"has not the fields of nnU-Net 2\.5 or newer \(KeyError: 'labels'"):
        read_planned_network(plans, "3d_fullres")


def test_the_command(plans: Path) -> None:
    line = ["nnunet", "fit", str(plans), "--memory", "100MiB", "--macs", "100%", "--macs", "30%", "--json"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["format"], found["precision"], found["margin"]) == ("ranp-nnunet-fit", "16-mixed", 0.1)
    assert (found["batch"], found["size"]) == (2, [8, 16, 16])
    full, pruned = found["rows"]
    assert pruned["largest_batch"] > full["largest_batch"] > 2
    for row in found["rows"]:
        depth, *plane = row["largest_size"]
        assert depth % 2 == 0
        assert plane[0] == plane[1] == 4 * round(depth / 2)
    assert pruned["command"] == (
        "nnUNet_ranp_macs=0.3 nnUNet_ranp_criterion=uniform nnUNetv2_train Dataset901_Balls 3d_fullres 0 "
        "-tr nnUNetTrainerRanp"
    )
    planned = read_planned_network(plans, "3d_fullres")
    plan = ranp.prune(planned.model, planned.inputs[:1], [], budget=ranp.Budget(macs=0.3), criterion="uniform").plan
    assert pruned["widths"] == [len(kept) for kept in plan.keep.values()]


def test_the_loss_is_that_of_deep_supervision(plans: Path) -> None:
    """More memory than a loss of the first output alone."""
    planned = read_planned_network(plans, "3d_fullres")
    line = ["nnunet", "fit", str(plans), "--memory", "100MiB", "--device", "cpu", "--macs", "100%", "--json"]
    (row,) = json.loads(CliRunner().invoke(app, line).stdout)["rows"]
    simple = ranp.TrainingSetup(
        loss_fn=lambda outputs, _: outputs[0].mean(), batch=(planned.inputs, None), optimizer="sgd"
    )
    least = ranp.fit(planned.model, planned.inputs, simple, memory="100 MiB", macs=[1]).rows[0]
    assert row["process_bytes"] > least.process_bytes
