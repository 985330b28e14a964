"""The batches and the loss that `ranp prune` scores neurons with, from the options that name them."""

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ranp.cli._options import BATCHES
from ranp.errors import InputError, nearest
from ranp.import_by_name import call, find, users_code
from ranp.progress import Progress
from ranp.tracing import output_shapes

NOISE = "neurons were scored on noise: the widths show the effect of the budget, and may differ for real data"
_RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """Pairs of inputs and targets to score on, the loss that suits them, and the target value that it ignores."""

    batches: Iterable[Any]
    loss: str = "cross-entropy"
    ignore_index: int = -100


def check_options(data: str, folder: Path | None, batch: int | None) -> None:
    """Refuse a folder without a recipe, a recipe without a folder, and a batch size for batches that are given."""
    suffix = Path(data).suffix
    if suffix in _RECIPES and folder is None:
        raise InputError("--folder", f"the recipe {data} needs the folder of its data set")
    if suffix not in _RECIPES and folder is not None:
        raise InputError("--folder", "applies only if --data is a recipe")
    if suffix not in (*_RECIPES, *_READERS) and batch is not None:
        raise InputError("--batch", f"applies only if --data is a file or a recipe, not to --data {data}")


def open_source(name: str, *, folder: Path | None, batch: int | None, seed: int, progress: Progress) -> Source:
    """Open batches by name (see `BATCHES`), except noise; the seed is for the order and augmentation of a recipe."""
    suffix = Path(name).suffix
    if suffix in _RECIPES and folder is not None:
        return _from_recipe(Path(name), folder, batch, seed, progress)
    if suffix in _READERS:
        return Source(_from_file(Path(name), batch or 1))
    if ":" not in name:
        hint = "for a folder, give a recipe that reads it: --data recipe.yaml --folder DIR"
        raise InputError("--data", got=repr(name), expected=BATCHES, hint=hint if Path(name).is_dir() else "")
    place = f"--data {name}"
    batches = call(find(name, place), {}, place, "wrap it in a function without arguments")
    if not isinstance(batches, Iterable):
        kind = type(batches).__name__
        raise InputError(place, f"returned an object of type {kind}, not an iterable of (inputs, targets)")
    return Source(_checked(batches, place))


def noise(model: nn.Module, inputs: tuple[Tensor, ...], loss: str, count: int, seed: int) -> Source:
    """Normally distributed inputs of these shapes, and random targets that fit the model's output and the loss."""
    from ranp.experiments.losses import LOSSES

    outputs = output_shapes(model, inputs)
    shape, generator = outputs[0], torch.Generator().manual_seed(seed)
    own = "give your own batches, as in --data nets.py:batches"
    if loss not in LOSSES:
        problem = f"the targets of --loss {loss} are unknown; known are those of {', '.join(LOSSES)}"
        raise InputError("--data noise", problem, hint=own)
    if len(outputs) > 1:
        problem = f"works for networks with one output, and this one has {len(outputs)}"
        raise InputError("--data noise", problem, hint=own)
    if loss != "mse" and (len(shape) < 2 or shape[1] < 2):
        expected = "shape (N, classes, ...) with at least 2 classes"
        raise InputError(f"--loss {loss}", got=f"an output of shape {shape}", expected=expected, hint="try --loss mse")

    def draw() -> tuple[tuple[Tensor, ...], Tensor]:
        drawn = tuple(torch.randn(tensor.shape, generator=generator) for tensor in inputs)
        if loss == "mse":
            return drawn, torch.randn(shape, generator=generator)
        return drawn, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)

    return Source([draw() for _ in range(count)])


def find_loss(name: str, ignore_index: int) -> Callable[[Any, Any], Any]:
    """A loss of (outputs, targets) by name: one of `LOSSES`, or a function or class of the user."""
    from ranp.experiments.losses import LOSSES, objective

    if name in LOSSES:
        return objective(name, ignore_index)
    place = f"--loss {name}"
    if ":" not in name:
        hint = f"{nearest(name, LOSSES)}; for your own loss give package.module:loss or file.py:loss"
        raise InputError("--loss", f"no loss is named {name!r}", hint=hint)
    found = find(name, place)
    loss = call(found, {}, place, "wrap it in a function of (outputs, targets)") if isinstance(found, type) else found
    if not callable(loss):
        raise InputError(place, f"is an object of type {type(loss).__name__}, not a function of (outputs, targets)")
    return loss  # type: ignore[no-any-return]


def peek(batches: Iterable[Any], name: str) -> tuple[Any, Iterable[Any]]:
    """The inputs of the first batch, and all batches."""
    iterator = iter(batches)
    first = next(iterator, None)
    if not isinstance(first, (tuple, list)) or len(first) != 2:
        got = "no batches" if first is None else f"a batch of type {type(first).__name__}"
        raise InputError(f"--data {name}", got=got, expected="pairs (inputs, targets)")
    return first[0], chain([first], iterator)


def _checked(batches: Iterable[Any], place: str) -> Iterator[Any]:
    with users_code(place, "failed"):
        yield from batches


def _from_recipe(path: Path, folder: Path, batch: int | None, seed: int, progress: Progress) -> Source:
    from ranp.experiments.data import ResumableSampler, derive_seed, resumable_loader, sample_count
    from ranp.experiments.recipes import read_recipe

    recipe = read_recipe(path)
    bundle = recipe.data_set(recipe.pruning.data).open(folder, progress=progress)
    size, count = batch or recipe.pruning.batch or recipe.training.batch, sample_count(bundle.train)
    sampler = ResumableSampler(count, size, seed=derive_seed(seed, "scoring"), start=0, stop=-(-count // size))
    batches = resumable_loader(bundle.train, sampler, workers=recipe.training.workers, pin=False)
    return Source(batches, recipe.training.loss, bundle.ignore_index)


def _numpy(path: Path) -> dict[str, Any]:
    # If the file is not an archive, numpy does not close a file that it opened itself.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


# None of these readers executes code from the file.
_READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _numpy,
    ".safetensors": load_file,
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
}


def _from_file(path: Path, batch: int) -> list[tuple[Tensor, Tensor]]:
    place, expected = f"--data {path}", "tensors named inputs and targets, of the same length"
    try:
        found = _READERS[path.suffix](path)
    except Exception as error:  # Every format has its own exceptions.
        problem = textwrap.shorten(f"cannot be read: {type(error).__name__}: {error}", 200)
        raise InputError(place, problem, expected=expected) from error
    parts: list[Any] = [found.get(name) for name in ("inputs", "targets")] if isinstance(found, dict) else []
    if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        names = f"{', '.join(map(str, found)) or 'nothing'}" if isinstance(found, dict) else type(found).__name__
        raise InputError(place, got=names, expected=expected)
    inputs, targets = (part.float() if part.is_floating_point() else part for part in parts)
    if len(inputs) != len(targets) or not len(inputs):
        raise InputError(place, got=f"{len(inputs)} inputs and {len(targets)} targets", expected=expected)
    targets = targets if targets.is_floating_point() else targets.long()
    return list(zip(inputs.split(batch), targets.split(batch), strict=True))
