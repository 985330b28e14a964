"""How far a training has come, and the checkpoint that holds it."""

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

FORMAT, VERSION = "ranp-checkpoint", 1
KEPT_DURATIONS = 200

Row = dict[str, Any]
"""Figures of one validation: step, seconds, loss and those of the metric."""


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        step: Steps done.
        seconds: Spent on them, waiting for data included, validation and checkpoints not.
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
        self.durations = [*self.durations[1 - KEPT_DURATIONS :], worked]

    def add_row(self, row: Row, primary_metric: str) -> bool:
        """Add a validation; tell whether it is the best so far.

        Example:
            >>> progress = Progress()
            >>> [progress.add_row({"step": step, "dice": dice}, "dice") for step, dice in enumerate((0.1, 0.3, 0.3))]
            [True, True, False]
            >>> progress.validations_since_best()
            1
        """
        self.curve.append(row)
        better = self.best is None or _value(row, primary_metric) > _value(self.best, primary_metric)
        if better:
            self.best = row
        return better

    def validations_since_best(self) -> int:
        """Validations after the best one."""
        best = self.best
        return 0 if best is None else sum(row["step"] > best["step"] for row in self.curve)


def _value(row: Row, primary_metric: str) -> float:
    value = row[primary_metric]
    return -math.inf if value is None else float(value)


def write_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Write all that training goes on from; the file that was there stays until the new one is whole."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def read_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> Progress:
    """Put model and optimizer in the state that a checkpoint holds; loading it runs no code.

    Raises:
        ArtifactError: The file is damaged, or no checkpoint of this model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"{content['format']!r} version {content['version']!r}")
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        return Progress(**content["progress"])
    # Whatever a damaged file makes torch raise: the training cannot go on from it.
    except Exception as error:
        reason = first_line(error)
        raise ArtifactError(
            str(path),
            got=f"a file that cannot be used ({reason})",
            expected="the checkpoint that ranp train wrote",
            hint="remove it to train again from the start; plan and best weights stay",
        ) from error


def write_best(path: Path, model: nn.Module, row: Row) -> None:
    """Write the weights of the best validation, and its figures."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in all_tensors(model, remove_duplicate=True).items()
    }
    write_bytes(path, save(tensors, metadata={"validation": json.dumps(row)}))


def read_best(path: Path) -> Row:
    """The figures of the best validation.

    Raises:
        ArtifactError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            metadata: Mapping[str, str] = stored.metadata() or {}
        return dict(json.loads(metadata["validation"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(str(path), got=str(error), expected="weights that ranp train wrote") from error
