"""nnU-Net's plans: the network, the patch size and the batch size that it has planned for a configuration.

Reading them needs the package of nnU-Net's networks, but not nnU-Net itself.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ranp.errors import ArtifactError, InputError, nearest
from ranp.import_by_name import call, find
from ranp.tracing import output_shapes


@dataclass(frozen=True, eq=False)
class PlannedNetwork:
    """What nnU-Net has planned for a configuration.

    Attributes:
        dataset: Name of the data set.
        model: The full network, with deep supervision.
        inputs: Zeros of shape (N, C, ...): a batch of the planned size.
        targets: For each of the network's outputs, labels of shape (N, ...).
        multiple: For each side of a patch, the number that it must be a multiple of.
    """

    dataset: str
    model: nn.Module
    inputs: Tensor
    targets: list[Tensor]
    multiple: tuple[int, ...]


def read_planned_network(plans: Path, configuration: str, dataset: Path | None = None) -> PlannedNetwork:
    """Build the network of a configuration with random weights.

    Args:
        plans: A file such as nnUNetPlans.json.
        configuration: Name of a configuration, such as `3d_fullres`.
        dataset: The data set's dataset.json; by default that in the folder of the plans.

    Raises:
        ArtifactError: A file is missing or has not the fields that nnU-Net writes.
        InputError: There is no such configuration, or its network cannot be built.
    """
    dataset = dataset or plans.parent / "dataset.json"
    content, facts = _read(plans), _read(dataset)
    try:
        found = _configuration(content, configuration, str(plans))
        architecture = found["architecture"]
        arguments = dict(architecture["arch_kwargs"])
        for name in architecture["_kw_requires_import"]:
            arguments[name] = arguments[name] and _named(arguments[name], str(plans))
        arguments |= {"input_channels": len(facts["channel_names"]), "num_classes": _outputs(facts)}
        strides: Any = zip(*arguments["strides"], strict=True)
        shape = (found["batch_size"], arguments["input_channels"], *found["patch_size"])
        name, network = content["dataset_name"], _named(architecture["network_class_name"], str(plans))
    except (LookupError, TypeError, AttributeError) as error:
        problem = f"{plans.name} or {dataset.name} has not the fields of nnU-Net 2.5 or newer"
        raise ArtifactError(str(plans), f"{problem} ({type(error).__name__}: {error})") from error
    with torch.random.fork_rng(devices=[]):
        model = call(network, {**arguments, "deep_supervision": True}, str(plans))
    inputs = torch.zeros(shape)
    targets = [torch.zeros(shape[0], *shape[2:], dtype=torch.int64) for shape in output_shapes(model, inputs)]
    return PlannedNetwork(name, model, inputs, targets, tuple(map(prod, strides)))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(str(path), f"cannot be read ({error})", hint="give a file that nnU-Net wrote") from error


def _configuration(plans: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    """The fields of a configuration, with those that it inherits from another one."""
    known = plans["configurations"]
    if name not in known:
        raise InputError(place, f"has no configuration {name!r}", hint=nearest(name, known))
    own = known[name]
    return {**_configuration(plans, own["inherits_from"], place), **own} if "inherits_from" in own else own


def _outputs(facts: Mapping[str, Any]) -> int:
    """Number of output channels: of the labels or, where some of them are regions, of the regions."""
    labels = {name: value for name, value in facts["labels"].items() if name != "ignore"}
    has_regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    return len(labels) - has_regions  # The background is no region.


def _named(path: str, place: str) -> Any:
    module, _, name = path.rpartition(".")
    return find(f"{module}:{name}", place)
