"""Words that commands take, for their help and for completion: told without importing what they stand for."""

from pathlib import Path
from typing import Literal, TypeAlias

NETWORKS = ("i3d", "mobilenetv2", "unet2d", "unet3d", "unet3d-23")
LOSSES = ("cross-entropy", "dice-cross-entropy", "mse")
PUBLISHED = ("shapenet", "brats", "mobilenetv2", "i3d")
LIMITS = ("macs", "params", "activations", "sparsity")
Criterion: TypeAlias = Literal[
    "constant", "layerwise", "random", "ranp-f", "ranp-m", "snip", "uniform", "vanilla", "weighted"
]
Importance: TypeAlias = Literal["parameter", "neuron"]
Weights: TypeAlias = Literal["keep", "glorot", "orthogonal"]


def networks(incomplete: str) -> list[str]:
    """Built-in networks, and files that may hold one."""
    return _starting(NETWORKS, incomplete) + [
        path if path.endswith("/") else f"{path}:" for path in _files(incomplete, ".py")
    ]


def losses(incomplete: str) -> list[str]:
    """Losses."""
    return _starting(LOSSES, incomplete)


def published(incomplete: str) -> list[str]:
    """Networks of the published table."""
    return _starting(PUBLISHED, incomplete)


def limits(incomplete: str) -> list[str]:
    """What a budget may limit."""
    return [f"{name}=" for name in _starting(LIMITS, incomplete)]


def _starting(words: tuple[str, ...], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]


def recipes(incomplete: str) -> list[str]:
    """Recipe files, and folders on the way to one."""
    return _files(incomplete, ".yaml") + [str(path) for path in Path().glob("recipes/*.yaml") if not incomplete]


def _files(incomplete: str, suffix: str) -> list[str]:
    """Files that begin like this, and folders that may hold one."""
    head, slash, tail = incomplete.rpartition("/")
    folder = Path(head + slash or ".")
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    matching = [path for path in found if path.name.startswith(tail) and (tail or not path.name.startswith("."))]
    return [f"{head}{slash}{path.name}/" for path in matching if path.is_dir()] + [
        f"{head}{slash}{path.name}" for path in matching if path.suffix == suffix
    ]
