"""The batches and the loss that `ranp prune` scores neurons with, from the words that name them."""

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ranp.cli._runs import need_recipes
from ranp.cli._words import LOSSES
from ranp.errors import InputError, nearest
from ranp.experiments.data import ResumableSampler, derive_seed, resumable_loader, sample_count
from ranp.experiments.losses import objective
from ranp.import_by_name import call, find, users_code
from ranp.tracing import output_shapes

Loss = Callable[[Any, Any], Any]

KINDS = (
    "package.module:factory or file.py:factory of an iterable of (inputs, targets); a file of both (.npz, "
    ".safetensors, .pt); a recipe with --folder; or noise"
)
NOISE = "neurons were scored on noise, which says little about real data: the widths show what a budget asks for"
RECIPES = (".yaml", ".yml")
_NOISE_BATCHES = 4


@dataclass(frozen=True)
class Source:
    """What `--data` names.

    Attributes:
        batches: Pairs of inputs and targets.
        loss: What fits the data, where the data say.
        ignore_index: Target that the loss leaves out.
    """

    batches: Iterable[Any]
    loss: str = "cross-entropy"
    ignore_index: int = -100


def check_together(data: str, folder: Path | None, batch: int | None) -> None:
    """Refuse options that do not go with the data.

    Raises:
        InputError: A folder without a recipe, or one without the other; a size of batches that are made already.
    """
    suffix = Path(data).suffix
    if suffix in RECIPES and folder is None:
        raise InputError("--folder", got="nothing", expected=f"the folder of the data that {data} reads")
    if suffix not in RECIPES and folder is not None:
        raise InputError("--folder", got=f"--data {data} beside it", expected="a recipe as --data")
    if suffix not in (*RECIPES, *_READERS) and batch is not None:
        raise InputError("--batch", got=f"--data {data}, which makes batches itself", expected="a file or a recipe")


def open_source(name: str, *, folder: Path | None, batch: int | None, seed: int, tell: Any) -> Source:
    """Find batches by name, other than noise.

    Args:
        name: A factory, a file or a recipe; see `KINDS`.
        folder: Of a recipe's data set.
        batch: Samples a batch, of a file or a recipe.
        seed: Of the order and the augmentation of a recipe's data.
        tell: Told of progress.

    Raises:
        RanpError: There are none of that name, or they cannot be read.
    """
    suffix = Path(name).suffix
    if suffix in RECIPES and folder is not None:
        return _from_recipe(Path(name), folder, batch, seed, tell)
    if suffix in _READERS:
        return Source(_from_file(Path(name), batch or 1))
    if ":" not in name:
        hint = "folders are read as recipes say: --data recipe.yaml --folder DIR" if Path(name).is_dir() else ""
        raise InputError("--data", got=repr(name), expected=KINDS, hint=hint)
    place = f"--data {name}"
    batches = call(find(name, place), {}, place, "wrap a function that needs arguments in one without any")
    if not isinstance(batches, Iterable):
        raise InputError(place, got=type(batches).__name__, expected="an iterable of (inputs, targets)")
    return Source(_watched(batches, place))


def noise(model: nn.Module, inputs: tuple[Tensor, ...], loss: str, count: int | None, seed: int) -> Source:
    """Batches drawn at random, inputs from a normal distribution, and targets that fit the model's output and the loss.

    Args:
        model: The network.
        inputs: Of the shapes to draw.
        loss: Name of the loss.
        count: How many batches; 4 if not given.
        seed: Of the draws.

    Raises:
        InputError: A model with several outputs, or a loss whose targets are unknown.
    """
    outputs = output_shapes(model, inputs)
    shape, generator = outputs[0], torch.Generator().manual_seed(seed)
    own = "give batches of your own: --data nets.py:batches"
    if loss not in LOSSES:
        raise InputError("--data noise", got=f"--loss {loss}", expected=f"--loss of {', '.join(LOSSES)}", hint=own)
    if len(outputs) > 1:
        raise InputError("--data noise", got=f"a network with {len(outputs)} outputs", expected="one", hint=own)
    if loss != "mse" and (len(shape) < 2 or shape[1] < 2):
        expected = "an output of (N, classes, ...) with 2 classes or more"
        raise InputError(f"--loss {loss}", got=f"an output of shape {shape}", expected=expected, hint="try --loss mse")

    def draw() -> tuple[tuple[Tensor, ...], Tensor]:
        drawn = tuple(torch.randn(tensor.shape, generator=generator) for tensor in inputs)
        if loss == "mse":
            return drawn, torch.randn(shape, generator=generator)
        return drawn, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)

    return Source([draw() for _ in range(count or _NOISE_BATCHES)])


def find_loss(name: str, ignore_index: int) -> Loss:
    """The loss of that name, a function of (outputs, targets).

    Args:
        name: One of `LOSSES`; or `package.module:loss` or `file.py:loss`, a function, or a class without arguments.
        ignore_index: Target that cross entropy leaves out.

    Raises:
        InputError: There is none.
    """
    if name in LOSSES:
        return objective(name, ignore_index)
    place = f"--loss {name}"
    if ":" not in name:
        hint = f"{nearest(name, LOSSES)}; for your own give package.module:loss or file.py:loss"
        raise InputError("--loss", got=repr(name), expected="a loss", hint=hint)
    found = find(name, place)
    loss = call(found, {}, place, "wrap it in a function of (outputs, targets)") if isinstance(found, type) else found
    if not callable(loss):
        raise InputError(place, got=type(loss).__name__, expected="a function of (outputs, targets)")
    return loss  # type: ignore[no-any-return]


def peek(batches: Iterable[Any], name: str) -> tuple[Any, Iterable[Any]]:
    """Inputs of the first batch, and all batches.

    Raises:
        InputError: There is no batch, or it is no pair.
    """
    iterator = iter(batches)
    first = next(iterator, None)
    if not isinstance(first, (tuple, list)) or len(first) != 2:
        got = "no batches" if first is None else f"a batch of type {type(first).__name__}"
        raise InputError(f"--data {name}", got=got, expected="batches: pairs (inputs, targets)")
    return first[0], chain([first], iterator)


def moved(inputs: Any, device: torch.device) -> Any:
    """Inputs of a model on a device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), inputs)


def at_most(batches: Iterable[Any], count: int | None) -> Iterable[Any]:
    """The first batches, or all."""
    return batches if count is None else islice(batches, count)


def _watched(batches: Iterable[Any], place: str) -> Iterator[Any]:
    with users_code(place, "no error"):
        yield from batches


def _from_recipe(path: Path, folder: Path, batch: int | None, seed: int, tell: Any) -> Source:
    need_recipes()
    from ranp.experiments.recipes import read_recipe

    recipe = read_recipe(path)
    bundle = recipe.data_set(recipe.pruning.data).open(folder, progress=tell)
    size = batch or recipe.pruning.batch or recipe.training.batch
    steps = -(-sample_count(bundle.train) // size)
    stream = ResumableSampler(sample_count(bundle.train), size, seed=derive_seed(seed, "scoring"), start=0, stop=steps)
    batches = resumable_loader(bundle.train, stream, workers=recipe.training.workers, pin=False)
    return Source(batches, recipe.training.loss, bundle.ignore_index)


def _numpy(path: Path) -> dict[str, Any]:
    # Of a file that is no archive, numpy would leave open what it opened itself.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


# None of these runs code from the file.
_READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": _numpy,
    ".safetensors": load_file,
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
}


def _from_file(path: Path, batch: int) -> list[tuple[Tensor, Tensor]]:
    place, expected = f"--data {path}", "a file with tensors named inputs and targets, as many of one as of the other"
    try:
        found = _READERS[path.suffix](path)
    except Exception as error:  # Of many kinds, one set for each format.
        got = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise InputError(place, got=got, expected=expected) from error
    parts: list[Any] = [found.get(name) for name in ("inputs", "targets")] if isinstance(found, dict) else []
    if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
        names = f"{', '.join(map(str, found)) or 'nothing'}" if isinstance(found, dict) else type(found).__name__
        raise InputError(place, got=names, expected=expected)
    inputs, targets = (part.float() if part.is_floating_point() else part for part in parts)
    if len(inputs) != len(targets) or not len(inputs):
        raise InputError(place, got=f"{len(inputs)} inputs and {len(targets)} targets", expected=expected)
    whole = targets if targets.is_floating_point() else targets.long()
    return list(zip(inputs.split(batch), whole.split(batch), strict=True))
