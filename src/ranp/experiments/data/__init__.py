"""Data sets, one module each; `DATA_SETS` names those that a folder of files is opened with."""

from typing import Any

from ranp.errors import InputError, nearest
from ranp.experiments.data._base import DataBundle, DataSet, Metric, Progress
from ranp.experiments.data._problems import Problem
from ranp.experiments.data.brats18 import BraTS18
from ranp.experiments.data.decathlon import Decathlon
from ranp.experiments.data.shapenet import ShapeNet
from ranp.experiments.data.ucf101 import UCF101

DATA_SETS: dict[str, type[DataSet[Any]]] = {
    "brats18": BraTS18,
    "decathlon": Decathlon,
    "shapenet": ShapeNet,
    "ucf101": UCF101,
}


def data_set(name: str) -> type[DataSet[Any]]:
    """The kind of data set of that name; call it with its settings.

    Raises:
        InputError: an unknown name; the nearest is suggested.

    Example:
        >>> data_set("decathlon")(size=(48, 64, 48))
        Decathlon(size=(48, 64, 48), validation=0.2, seed=0, cache=1.0, augment=True, slices=False)
    """
    if name not in DATA_SETS:
        raise InputError("data", got=repr(name), expected="a data set", hint=nearest(name, DATA_SETS))
    return DATA_SETS[name]


__all__ = ["DATA_SETS", "DataBundle", "DataSet", "Metric", "Problem", "Progress", "data_set"]
