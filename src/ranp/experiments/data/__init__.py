"""Data sets: one module and one row of `DATA_SETS` each; and resumable loading of their samples."""

from collections.abc import Mapping
from typing import Any

from ranp.errors import InputError, nearest
from ranp.experiments.data._base import DataBundle, DataSet, Metric
from ranp.experiments.data._files import OnProblem, Problem
from ranp.experiments.data.brats18 import BraTS18
from ranp.experiments.data.decathlon import Decathlon
from ranp.experiments.data.mni152 import MNI152
from ranp.experiments.data.sampler import ResumableSampler, derive_seed, resumable_loader, sample_count
from ranp.experiments.data.shapenet import ShapeNet
from ranp.experiments.data.ucf101 import UCF101
from ranp.import_by_name import find

DATA_SETS: dict[str, type[DataSet[Any]]] = {
    "brats18": BraTS18,
    "decathlon": Decathlon,
    "mni152": MNI152,
    "shapenet": ShapeNet,
    "ucf101": UCF101,
}


def data_set(name: str, extra: Mapping[str, type[DataSet[Any]]] | None = None) -> type[DataSet[Any]]:
    """The data set class of that name; call it with its settings.

    Args:
        name: In `extra` or `DATA_SETS`; or a class of your own as `package.module:Class` or `path/to/file.py:Class`.
        extra: Further data sets by name; they take precedence over the built-in ones.

    Raises:
        InputError: There is no data set of that name (the nearest is suggested), or it is not a `DataSet`.

    Example:
        >>> data_set("decathlon")(size=(48, 64, 48))
        Decathlon(size=(48, 64, 48), validation=0.2, seed=0, cache=1.0, augment=True, slices=False)
        >>> data_set("mine", {"mine": Decathlon}) is data_set("ranp.experiments.data:Decathlon")
        True
    """
    known = {**DATA_SETS, **(extra or {})}
    if name not in known and ":" not in name:
        hint = f"{nearest(name, known)}; name your own as package.module:Class or path/to/file.py:Class"
        raise InputError("data", f"no data set is named {name!r}", hint=hint)
    found = known.get(name) or find(name, f"data {name}")
    if not (isinstance(found, type) and issubclass(found, DataSet)):
        raise InputError(f"data {name}", "is not a subclass of ranp.experiments.data.DataSet")
    return found


__all__ = [
    "DATA_SETS",
    "DataBundle",
    "DataSet",
    "Metric",
    "OnProblem",
    "Problem",
    "ResumableSampler",
    "data_set",
    "derive_seed",
    "resumable_loader",
    "sample_count",
]
