"""Artifacts: folders with a plan and weights, which appear complete or not at all; loading one runs no code.

A folder holds `plan.json` (the plan), `weights.safetensors` (every parameter and buffer, once), and `artifact.json`
(format, version, and the SHA-256 of the other two).
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ranp.arguments import checked
from ranp.errors import ArtifactError, PlanError, first_line
from ranp.files import FilePath, new_folder, read_json, write_json
from ranp.module_utils import ModelWithValues, all_tensors
from ranp.plan import Plan, read_plan
from ranp.surgery import apply

FORMAT, FORMAT_VERSION = "ranp-artifact", 1
_FILES = ("plan.json", "weights.safetensors")


@checked
def save(model: ModelWithValues, plan: Plan, folder: FilePath) -> Path:
    """Write a pruned model, trained or not, and the plan it was made by into a new folder, whose path is returned.

    Raises:
        ArtifactError: The folder exists or cannot be written, or a parameter contains NaN. Nothing half-written is left
            behind.
        PlanError: The model was not made by this plan.
    """
    with new_folder(folder) as partial:
        write_artifact(model, plan, partial)
    return Path(folder)


def write_artifact(model: nn.Module, plan: Plan, folder: Path) -> None:
    """Write what `save` writes into an existing folder, such as one that `ranp.files.new_folder` yields."""
    tensors = all_tensors(model, attributes=True)
    for entry in plan.slices:
        shape = tuple(tensors[entry.tensor].shape) if entry.tensor in tensors else ()
        if len(shape) <= entry.dim or shape[entry.dim] != len(entry.keep):
            expected = f"size {len(entry.keep)} along dimension {entry.dim}, according to the plan"
            hint = "save the pruned model with the plan it was made by"
            raise PlanError(f"save: {entry.tensor}", got=f"shape {shape}", expected=expected, hint=hint)
    _refuse_nan(model, tensors, "save")
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    stored = all_tensors(model, remove_duplicate=True)
    values = {name: tensor.detach().cpu().contiguous() for name, tensor in stored.items()}
    try:
        save_file(values, folder / "weights.safetensors")
    except SafetensorError as error:
        raise ArtifactError(str(folder), f"the weights cannot be written ({error})") from error
    digests = {name: _digest(folder / name) for name in _FILES}
    write_json(folder / "artifact.json", {"format": FORMAT, "version": FORMAT_VERSION, "sha256": digests})


@checked
def load(folder: FilePath, model: ModelWithValues) -> nn.Module:
    """Read a pruned model back.

    Args:
        folder: What `save` wrote.
        model: A freshly built full model, like the one that was pruned; it is left as it is.

    Returns:
        The pruned model with the stored weights, in training or eval mode as `model` is.

    Raises:
        ArtifactError: A file is missing, damaged or not what `save` writes.
        PlanError: The model is not like the one that was pruned.
    """
    small = apply(model, load_plan(folder))
    read_weights(small, Path(folder) / "weights.safetensors")
    return small


@checked
def load_plan(folder: FilePath) -> Plan:
    """Read the plan of an artifact whose files are all there and unchanged; or a `plan.json` on its own."""
    root = Path(folder)
    if os.path.isfile(root):
        return read_plan(root)
    for name in ("artifact.json", *_FILES):
        if not os.path.isfile(root / name):
            hint = "expected a folder with artifact.json, plan.json and weights.safetensors"
            raise ArtifactError(str(root / name), "there is no such file", hint=hint)
    digests = read_json(root / "artifact.json", format=FORMAT, version=FORMAT_VERSION).get("sha256")
    for name in _FILES:
        if not isinstance(digests, dict) or digests.get(name) != _digest(root / name):
            hint = "the file is damaged or was changed: copy it again"
            raise ArtifactError(str(root / name), "its content does not match its checksum in artifact.json", hint=hint)
    return read_plan(root / "plan.json")


def read_weights(model: nn.Module, path: Path) -> None:
    """Fill a model, in place, with the parameters and buffers of a safetensors file."""
    tensors = all_tensors(model, remove_duplicate=True)
    hint = "build the model as it was built when it was pruned"
    try:
        with safe_open(path, framework="pt") as stored:
            names = set(stored.keys())
            for odd in sorted(names ^ tensors.keys()):
                problem = f"it has {'no' if odd in tensors else 'an unknown'} tensor {odd!r}"
                raise ArtifactError(str(path), problem, hint=hint)
            values = {name: stored.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(str(path), f"it cannot be read as safetensors ({first_line(error)})") from error
    for name, value in values.items():
        got, expected = (f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (value, tensors[name]))
        if got != expected:
            raise ArtifactError(f"{path}: {name}", got=got, expected=expected, hint=hint)
    _refuse_nan(model, values, str(path))
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)


def _refuse_nan(model: nn.Module, values: Mapping[str, Tensor], place: str) -> None:
    for name in dict(model.named_parameters()).keys() & values.keys():
        if torch.isnan(values[name]).any():
            raise ArtifactError(f"{place}: {name}", "contains NaN", hint="use weights from before training diverged")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ArtifactError(str(path), f"cannot be read ({error.strerror})") from error
    return digest.hexdigest()
