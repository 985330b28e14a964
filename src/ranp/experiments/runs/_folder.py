"""The folder of a run: which files it holds, who may write into it, and whether a run may be resumed in it."""

import csv
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError, InputError
from ranp.experiments.recipes import upgrade_recipe
from ranp.files import new_folder, read_json, write_json

CHANGEABLE = ("about", "training.workers", "training.checkpoint_every")
"""Fields of a recipe that do not change what a run computes."""

_LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """Files in the folder of a run; each is written completely or not at all.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> Path:
        """The recipe, as JSON; a folder with this file is a run."""
        return self.path / "run.json"

    @property
    def plan(self) -> Path:
        """The pruned network with its initial weights, as `ranp.save` writes it."""
        return self.path / "plan"

    @property
    def pruning(self) -> Path:
        """Results of pruning: costs at the size of training, batches, seconds."""
        return self.path / "pruning.json"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """Weights with the best validation so far, with its metrics as metadata."""
        return self.path / "best.safetensors"

    @property
    def curve(self) -> Path:
        """Metrics of every validation."""
        return self.path / "curve.csv"

    @property
    def result(self) -> Path:
        """Results of the finished run."""
        return self.path / "result.json"

    @property
    def evaluation(self) -> Path:
        """Results of `ranp evaluate`."""
        return self.path / "evaluation.json"

    @property
    def model(self) -> Path:
        """The trained network, as `ranp.save` writes it."""
        return self.path / "model"

    @property
    def logs(self) -> Path:
        """Events for TensorBoard."""
        return self.path / "logs"

    def read_recipe(self) -> dict[str, Any]:
        """The recipe, as plain data.

        Raises:
            ArtifactError: The folder is not that of a run, or the file is damaged.
        """
        return dict(_read(self.record).get("recipe", {}))

    def read_pruning(self) -> dict[str, Any]:
        """Results of pruning.

        Raises:
            ArtifactError: Pruning is not finished, or the file is damaged.
        """
        return _read(self.pruning)

    def read_result(self) -> dict[str, Any]:
        """Results of the finished run.

        Raises:
            ArtifactError: The run is not finished, or the file is damaged.
        """
        return _read(self.result)

    def read_evaluation(self) -> dict[str, Any]:
        """Results of `ranp evaluate`.

        Raises:
            ArtifactError: The run was never evaluated, or the file is damaged.
        """
        return _read(self.evaluation)

    def read_curve(self) -> tuple[dict[str, float | None], ...]:
        """Metrics of every validation; None where a value is not a finite number.

        Raises:
            ArtifactError: The file is missing or damaged.
        """
        try:
            with self.curve.open(encoding="utf-8", newline="") as file:
                rows = tuple({name: _number(text) for name, text in row.items()} for row in csv.DictReader(file))
            if any(row[name] is None for row in rows for name in ("step", "seconds")):
                raise ValueError("a row without step or seconds")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise ArtifactError(
                str(self.curve),
                f"the curve of ranp train cannot be read ({error})",
                hint="resume the run to write it again",
            ) from error
        return rows

    def write(self, path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
        """Write one of the JSON files, with its format and version first.

        Returns:
            What was written.
        """
        kind = _KINDS[path.name]
        written = {"format": kind.format, "version": kind.version, **content}
        write_json(path, written)
        return written


@dataclass(frozen=True)
class _Kind:
    """A kind of JSON file: its format, its version, and how to read the versions before."""

    format: str
    version: int
    upgrades: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]


def _renamed(content: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in content.items()}


_KINDS = {
    "run.json": _Kind("ranp-run", 2, {1: lambda content: {**content, "recipe": upgrade_recipe(content["recipe"])}}),
    "pruning.json": _Kind("ranp-pruning", 1, {}),
    "result.json": _Kind("ranp-run", 2, {1: lambda content: _renamed(content, {"headline": "primary_metric"})}),
    "evaluation.json": _Kind(
        "ranp-evaluation",
        2,
        {1: lambda content: _renamed(content, {"headline": "primary_metric", "figures": "metrics"})},
    ),
}


def _read(path: Path) -> dict[str, Any]:
    kind = _KINDS[path.name]
    return read_json(path, format=kind.format, version=kind.version, upgrades=kind.upgrades)


def _number(text: str) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


@contextmanager
def lock_run_dir(out: Path, recipe: Mapping[str, Any], *, resume: bool) -> Iterator[RunFolder]:
    """Begin or resume a run in a folder, and lock the folder against other processes.

    Args:
        out: The folder.
        recipe: As plain data; it must be the one that the run began with.
        resume: Resume the run in the folder; begin one if there is none.

    Raises:
        ArtifactError: The folder exists and is not to be resumed, is not that of a run, or another process trains
            in it.
        InputError: The run began with another recipe.
    """
    if not resume and (out.exists() or out.is_symlink()):
        raise ArtifactError(
            str(out),
            "the path exists already",
            hint="add --resume to continue the run in it, or choose another name; nothing is overwritten",
        )
    if not out.exists():
        with new_folder(out) as partial:
            folder = RunFolder(partial)
            folder.write(folder.record, {"recipe": dict(recipe)})
    folder = RunFolder(out)
    check_same_recipe(str(out), folder.read_recipe(), recipe)
    with _locked(folder):
        _remove_partial_files(folder)
        yield folder


def check_same_recipe(place: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a recipe that would compute something else than the one that the run began with.

    Args:
        place: Where the run is, for the message.
        before: The recipe that the run began with, as plain data.
        now: The recipe to continue with.

    Raises:
        InputError: A field differs that is not among `CHANGEABLE`.
    """
    began, wanted = _flat(before), _flat(now)
    for name in sorted(began.keys() | wanted.keys()):
        if name not in CHANGEABLE and began.get(name) != wanted.get(name):
            raise InputError(
                f"{place}: {name}",
                got=repr(wanted.get(name)),
                expected=f"{began.get(name)!r}, as when the run began",
                hint="resume with the same recipe, or begin a new run in another folder",
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {f"{prefix}{name}": item}
    return found


def _remove_partial_files(folder: RunFolder) -> None:
    """Remove what a killed run had begun to write."""
    for path in folder.path.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


@contextmanager
def _locked(folder: RunFolder) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however that happens."""
    try:
        import fcntl
    except ImportError:  # No such locks on this system.
        yield
        return
    with (folder.path / _LOCK).open("w") as file:
        try:
            # Not `flock`: loader processes would hold that lock, too, and they outlive a run that is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArtifactError(str(folder.path), "another process is training in this folder") from error
        yield
