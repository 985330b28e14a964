"""The state of a training, and the files that hold it: the checkpoint and the best weights."""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer

from ranp.errors import ArtifactError, first_line
from ranp.files import write_bytes
from ranp.module_utils import all_tensors

_FORMAT, _VERSION = "ranp-checkpoint", 1
_KEPT_DURATIONS = 200

Row = dict[str, Any]
"""One validation: step, seconds, loss, learning rate, and the metrics by name."""


@dataclass
class TrainingState:
    """How far a training has come.

    Attributes:
        step: Finished steps.
        seconds: Time of these steps, including waiting for data, without validation and checkpoints.
        waited: Seconds of these spent waiting for data.
        durations: Seconds of the latest steps, without waiting.
        curve: A row for every validation.
        best: The row of the best validation.
    """

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    durations: list[float] = field(default_factory=list)
    curve: list[Row] = field(default_factory=list)
    best: Row | None = None

    def add_step(self, waited: float, worked: float) -> None:
        """Count one more step."""
        self.step += 1
        self.waited += waited
        self.seconds += waited + worked
        self.durations = [*self.durations[1 - _KEPT_DURATIONS :], worked]

    def add_row(self, row: Row, primary_metric: str) -> bool:
        """Add a validation; returns whether it is better than all before; no number is worse than any."""
        self.curve.append(row)
        better = self.best is None or _value(row, primary_metric) > _value(self.best, primary_metric)
        if better:
            self.best = row
        return better

    def validations_since_best(self) -> int:
        """Number of validations after the best one."""
        return 0 if self.best is None else sum(row["step"] > self.best["step"] for row in self.curve)


def _value(row: Row, primary_metric: str) -> float:
    value = row[primary_metric]
    return -math.inf if value is None else float(value)


def write_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, state: TrainingState) -> None:
    """Write all that training resumes from; the previous file remains until the new one is complete."""
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(state),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def read_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> TrainingState:
    """Restore model and optimizer from a checkpoint; loading it runs no code. An `ArtifactError` if it is damaged."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if (content["format"], content["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"{content['format']!r} version {content['version']!r}")
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        return TrainingState(**content["progress"])
    # Whatever torch raises for a damaged file: training cannot resume from it.
    except Exception as error:
        problem = f"is not a usable checkpoint of ranp train ({first_line(error)})"
        hint = "remove it to train again from the start; the plan and the best weights are kept"
        raise ArtifactError(str(path), problem, hint=hint) from error


def write_best(path: Path, model: nn.Module, row: Row) -> None:
    """Write the weights of the best validation, with the validation as metadata."""
    named = all_tensors(model, remove_duplicate=True).items()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named}
    write_bytes(path, save(tensors, metadata={"validation": json.dumps(row)}))


def read_best(path: Path) -> Row:
    """The best validation; an `ArtifactError` if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as stored:
            metadata: Mapping[str, str] = stored.metadata() or {}
        return dict(json.loads(metadata["validation"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(str(path), f"are not weights of ranp train ({error})") from error
