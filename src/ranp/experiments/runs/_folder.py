"""The folder of a run: what lies where, who may write into it, and whether a run may go on in it."""

import csv
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError, InputError
from ranp.files import new_folder, write_json

FORMAT, VERSION = "ranp-run", 1
PRUNING, EVALUATION = "ranp-pruning", "ranp-evaluation"
LOCK = ".lock"
MAY_CHANGE = ("about", "training.workers", "training.checkpoint_every")
"""Fields of a recipe that do not change what a run computes."""


@dataclass(frozen=True)
class RunFolder:
    """Paths within the folder of a run; every file is written at once or not at all.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def record(self) -> Path:
        """The recipe, as JSON: what makes a folder that of a run."""
        return self.path / "run.json"

    @property
    def plan(self) -> Path:
        """The pruned network with its initial weights, as `ranp.save` writes it."""
        return self.path / "plan"

    @property
    def pruning(self) -> Path:
        """What pruning found: costs at the size of training, batches, seconds."""
        return self.path / "pruning.json"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """Weights with the best validation so far, with its figures as metadata."""
        return self.path / "best.safetensors"

    @property
    def curve(self) -> Path:
        """Figures of every validation."""
        return self.path / "curve.csv"

    @property
    def result(self) -> Path:
        """Figures of the run so far."""
        return self.path / "result.json"

    @property
    def evaluation(self) -> Path:
        """What `ranp evaluate` found."""
        return self.path / "evaluation.json"

    @property
    def model(self) -> Path:
        """The trained network, as `ranp.save` writes it."""
        return self.path / "model"

    @property
    def logs(self) -> Path:
        """Events for TensorBoard."""
        return self.path / "logs"


def read_json(path: Path, format_name: str = FORMAT) -> dict[str, Any]:
    """Read one of the JSON files that a run writes.

    Raises:
        ArtifactError: It is missing, damaged, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] == format_name and content["version"] == VERSION:
            return dict(content)
        got = f"{content['format']!r} version {content['version']!r}"
    except FileNotFoundError:
        got = "no file"
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"{type(error).__name__}: {error}"
    raise ArtifactError(str(path), got=got, expected="a file that ranp train wrote")


def read_curve(path: Path) -> tuple[dict[str, float | None], ...]:
    """Read the validations of a run; None where a figure is not a finite number.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = tuple({name: _number(text) for name, text in row.items()} for row in csv.DictReader(file))
        if any(row[name] is None for row in rows for name in ("step", "seconds")):
            raise ValueError("a row without step or seconds")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ArtifactError(
            str(path),
            got=f"a table that cannot be read ({error})",
            expected="the curve that ranp train wrote",
            hint="resume the run to have it written again",
        ) from error
    return rows


def _number(text: str) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


@contextmanager
def lock_run_dir(out: Path, recipe: Mapping[str, Any], *, resume: bool) -> Iterator[RunFolder]:
    """A run's folder, begun or taken up again, that no other process trains in.

    Args:
        out: The folder.
        recipe: As plain data; it must be the one that the run began with.
        resume: Take up a run again; begin one if there is none.

    Raises:
        ArtifactError: The folder exists and is not to be resumed, is no run's, or another process trains in it.
        InputError: The run began with another recipe.
    """
    if not resume and (out.exists() or out.is_symlink()):
        raise ArtifactError(
            str(out),
            got="a path that exists",
            expected="a new folder",
            hint="add --resume to continue the run in it, or choose another name; nothing is overwritten",
        )
    if not out.exists():
        with new_folder(out) as partial:
            write_json(partial / "run.json", {"format": FORMAT, "version": VERSION, "recipe": dict(recipe)})
    folder = RunFolder(out)
    check_same(str(out), read_json(folder.record)["recipe"], recipe)
    with _locked(folder):
        _clear_leftovers(folder)
        yield folder


def check_same(place: str, began: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse a recipe that would compute something else than what the run began with.

    Args:
        place: Where the run is, for the message.
        began: The recipe that the run began with, as plain data.
        asked: The recipe to go on with.

    Raises:
        InputError: A field differs that is not among `MAY_CHANGE`.
    """
    before, now = _flat(began), _flat(asked)
    for name in sorted(before.keys() | now.keys()):
        if name not in MAY_CHANGE and before.get(name) != now.get(name):
            raise InputError(
                f"{place}: {name}",
                got=repr(now.get(name)),
                expected=f"{before.get(name)!r}, as when the run began",
                hint="resume with the same recipe, or begin a new run in another folder",
            )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {f"{prefix}{name}": item}
    return found


def _clear_leftovers(folder: RunFolder) -> None:
    """Remove what a run that was killed had begun to write."""
    for path in folder.path.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


@contextmanager
def _locked(folder: RunFolder) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # No such locks on this system.
        yield
        return
    with (folder.path / LOCK).open("w") as file:
        try:
            # Not `flock`: loader processes would hold that lock, too, and they outlive a run that is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArtifactError(
                str(folder.path), got="a run that another process trains", expected="a run that nobody trains now"
            ) from error
        yield
