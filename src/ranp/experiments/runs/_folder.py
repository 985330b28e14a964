"""The folder of a run: which files it holds, who may write into it, and whether a run may be resumed in it."""

import csv
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ranp.errors import ArtifactError, InputError
from ranp.experiments.recipes import upgrade_recipe
from ranp.files import new_folder, read_json, write_json

# Fields of a recipe that do not change what a run computes.
_CHANGEABLE = ("about", "training.workers", "training.checkpoint_every")
# Fields whose default has changed: a run that began before keeps the one that it began with.
_NEW_DEFAULTS = {"pruning.min_width": None, "pruning.round_to": None}
# Fields that runs of earlier versions lack.
_NEW_FIELDS = {"pruning.policy": "threshold"}
_LOCK = ".lock"


class RunFolder:
    """Files in the folder of a run; each is written completely or not at all.

    Attributes:
        path: The folder.
        record: The recipe, as JSON; a folder with this file is a run.
        plan: The pruned network with its initial weights, as `ranp.save` writes it.
        pruning: Results of pruning: costs at the size of training, batches, seconds.
        last: The checkpoint to resume from.
        best: Weights with the best validation so far, with its metrics as metadata.
        curve: Metrics of every validation.
        result: Results of the finished run.
        evaluation: Results of `ranp evaluate`.
        model: The trained network, as `ranp.save` writes it.
        logs: Events for TensorBoard.

    The methods that read raise an `ArtifactError` if the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.plan = path / "plan"
        self.pruning = path / "pruning.json"
        self.last = path / "last.ckpt"
        self.best = path / "best.safetensors"
        self.curve = path / "curve.csv"
        self.result = path / "result.json"
        self.evaluation = path / "evaluation.json"
        self.model = path / "model"
        self.logs = path / "logs"

    def read_recipe(self) -> dict[str, Any]:
        """The recipe, as plain data."""
        recipe = self.read(self.record).get("recipe")
        if not isinstance(recipe, dict):
            raise ArtifactError(str(self.record), "the recipe is missing", hint="the file may be damaged: restore it")
        return recipe

    def read(self, path: Path) -> dict[str, Any]:
        """The content of one of the JSON files."""
        format, version, upgrades = _FORMATS[path.name]
        return read_json(path, format=format, version=version, upgrades=upgrades)

    def read_curve(self) -> tuple[dict[str, float | None], ...]:
        """Metrics of every validation; None where a value is not a finite number."""
        try:
            with self.curve.open(encoding="utf-8", newline="") as file:
                rows = tuple({name: _number(text) for name, text in row.items()} for row in csv.DictReader(file))
            if any(row[name] is None for row in rows for name in ("step", "seconds")):
                raise ValueError("a row without step or seconds")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            problem = f"the curve of ranp train cannot be read ({error})"
            raise ArtifactError(str(self.curve), problem, hint="resume the run to write it again") from error
        return rows

    def write(self, path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
        """Write one of the JSON files and return what was written: format, version and the content."""
        format, version, _ = _FORMATS[path.name]
        written = {"format": format, "version": version, **content}
        write_json(path, written)
        return written


def _renamed(**names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {names.get(name, name): value for name, value in content.items()}


# Format, version, and how to read older versions of each JSON file.
_FORMATS: dict[str, tuple[str, int, Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]]] = {
    "run.json": ("ranp-run", 2, {1: lambda content: {**content, "recipe": upgrade_recipe(content["recipe"])}}),
    "pruning.json": ("ranp-pruning", 1, {}),
    "result.json": ("ranp-run", 2, {1: _renamed(headline="primary_metric")}),
    "evaluation.json": ("ranp-evaluation", 2, {1: _renamed(headline="primary_metric", figures="metrics")}),
}


def _number(text: str) -> float | None:
    value = float(text) if text else math.nan
    return value if math.isfinite(value) else None


@contextmanager
def lock_run_dir(out: Path, recipe: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Begin a run in a new folder, or resume the run in an existing one, and lock the folder against other processes.

    The system releases the lock when the process ends, however that happens.

    Raises:
        ArtifactError: The folder exists and is not to be resumed, is not that of a run, or is locked.
        InputError: The run began with another recipe.
    """
    folder = RunFolder(out)
    if not resume and (out.exists() or out.is_symlink()):
        hint = "add --resume to continue the run in it, or choose another name; nothing is overwritten"
        raise ArtifactError(str(out), "the path exists already", hint=hint)
    if not out.exists():
        with new_folder(out) as partial:
            folder.write(partial / folder.record.name, {"recipe": dict(recipe)})
    check_same_recipe(str(out), folder.read_recipe(), recipe)
    with (out / _LOCK).open("w") as file:
        try:
            import fcntl

            # Not `flock`: loader processes would hold that lock, too, and they outlive a run that is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # No such locks on this system.
        except OSError as error:
            raise ArtifactError(str(out), "another process is training in this folder") from error
        for path in out.glob(".*"):  # What a killed run had begun to write.
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
        yield


def check_same_recipe(place: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a recipe, as plain data, that would compute something else than the one that a run began with.

    Raises:
        InputError: A field differs that changes what is computed; the message names the place and the field.
    """
    began, wanted = {**_NEW_FIELDS, **_flat(before)}, _flat(now)
    wanted |= {name: began.get(name) for name, default in _NEW_DEFAULTS.items() if wanted.get(name) == default}
    for name in sorted(began.keys() | wanted.keys()):
        if name not in _CHANGEABLE and began.get(name) != wanted.get(name):
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
