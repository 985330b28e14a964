"""Artifacts: a folder with a plan and weights, written at once or not at all; loading one runs no code.

A folder holds `plan.json` (the plan), `weights.safetensors` (every parameter and buffer, once), and `artifact.json`
(format, version, and the SHA-256 of the other two).
"""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ranp.errors import ArtifactError, PlanError, RanpError
from ranp.files import new_folder
from ranp.module_utils import all_tensors
from ranp.plan import Plan
from ranp.surgery import apply

FORMAT_VERSION = 1
_FILES = ("plan.json", "weights.safetensors")


def save(model: nn.Module, plan: Plan, folder: str | os.PathLike[str]) -> Path:
    """Write a pruned model and its plan into a new folder.

    Args:
        model: The pruned model, trained or not.
        plan: The plan it was made by.
        folder: Where to; must not exist yet.

    Returns:
        The folder.

    Raises:
        ArtifactError: The folder exists, or cannot be written. Nothing half-written is left behind.
        PlanError: The model was not made by this plan.
    """
    with new_folder(folder) as partial:
        write_artifact(model, plan, partial)
    return Path(folder)


def write_artifact(model: nn.Module, plan: Plan, folder: Path) -> None:
    """Write what `save` does into a folder that is there, and that appears under its name when all is in it.

    Raises:
        ArtifactError: The folder cannot be written.
        PlanError: The model was not made by this plan.
    """
    _check_pruned(model, plan)
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in all_tensors(model, remove_duplicate=True).items()
    }
    try:
        save_file(tensors, folder / "weights.safetensors")
    except SafetensorError as error:
        raise ArtifactError(str(folder), got=str(error), expected="a place that can be written") from error
    digests = {name: _digest(folder / name) for name in _FILES}
    manifest = {"format": "ranp-artifact", "version": FORMAT_VERSION, "sha256": digests}
    (folder / "artifact.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _check_pruned(model: nn.Module, plan: Plan) -> None:
    tensors = all_tensors(model, remove_duplicate=True)
    for entry in plan.slices:
        shape = tuple(tensors[entry.tensor].shape) if entry.tensor in tensors else ()
        if len(shape) <= entry.dim or shape[entry.dim] != len(entry.keep):
            raise PlanError(
                f"save: {entry.tensor}",
                got=f"shape {shape}",
                expected=f"size {len(entry.keep)} along dimension {entry.dim}, as the plan says",
                hint="save the pruned model with the plan it was made by",
            )


def load(folder: str | os.PathLike[str], model: nn.Module) -> nn.Module:
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
    plan = load_plan(folder)
    small = apply(model, plan)
    read_weights(small, Path(folder) / "weights.safetensors")
    return small


def load_plan(folder: str | os.PathLike[str]) -> Plan:
    """Read the plan of an artifact, after checking that the artifact is whole; or a `plan.json` on its own.

    Raises:
        ArtifactError: A file is missing, damaged or not what `save` writes.
        PlanError: A `plan.json` on its own is no plan.
    """
    root = Path(folder)
    if root.is_file():
        try:
            return Plan.from_json(root.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(str(root), got=str(error), expected="a plan that ranp wrote") from error
    for name in ("artifact.json", *_FILES):
        if not (root / name).is_file():
            raise ArtifactError(
                str(root / name),
                got="no such file",
                expected="a folder that ranp.save wrote (artifact.json, plan.json, weights.safetensors)",
            )
    try:
        manifest = json.loads((root / "artifact.json").read_text(encoding="utf-8"))
        found = {name: _digest(root / name) for name in _FILES}
        expected = manifest["sha256"]
        if manifest.get("format") != "ranp-artifact" or manifest.get("version") != FORMAT_VERSION:
            raise ArtifactError(
                str(root),
                got=f"{manifest.get('format')!r} version {manifest.get('version')!r}",
                expected=f"'ranp-artifact' version {FORMAT_VERSION}",
            )
        for name in _FILES:
            if found[name] != expected[name]:
                raise ArtifactError(
                    str(root / name),
                    got="contents that do not match their checksum",
                    expected="the file as it was saved",
                    hint="it is damaged or was changed: copy it again",
                )
        return Plan.from_json((root / "plan.json").read_text(encoding="utf-8"))
    except RanpError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            str(root),
            got=f"{type(error).__name__}: {error}",
            expected="a folder that ranp.save wrote (artifact.json, plan.json, weights.safetensors)",
        ) from error


def read_weights(model: nn.Module, path: Path) -> None:
    """Fill a model, in place, with the parameters and buffers of a safetensors file.

    Raises:
        ArtifactError: The file cannot be read, or was written of another model.
    """
    tensors = all_tensors(model, remove_duplicate=True)
    try:
        with safe_open(path, framework="pt") as stored:
            names = set(stored.keys())
            if names != tensors.keys():
                odd = min(names ^ tensors.keys())
                raise ArtifactError(
                    str(path),
                    got=f"{'no' if odd in tensors else 'an unknown'} tensor {odd!r}",
                    expected="the pruned model's parameters and buffers",
                )
            values = {name: stored.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(str(path), got=str(error), expected="a safetensors file as ranp writes it") from error
    for name, value in values.items():
        if value.shape != tensors[name].shape or value.dtype != tensors[name].dtype:
            raise ArtifactError(
                f"{path}: {name}",
                got=f"{value.dtype} {tuple(value.shape)}",
                expected=f"{tensors[name].dtype} {tuple(tensors[name].shape)}",
                hint="build the model as it was built when it was pruned",
            )
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
