"""Learning from a pass in eval mode whether training mode does the same: most forwards never ask for the mode."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from inspect import signature
from threading import RLock
from typing import Any

from torch import Tensor, nn

from ranp.module_utils import tensors_in
from ranp.tracing._records import Forward, Recording
from ranp.tracing._running import ALIKE, Observer, Recorder, Stage

_ONE_AT_A_TIME = RLock()


@contextmanager
def askers(observer: Observer) -> Iterator[set[Forward | None]]:
    """Collect the forwards that ask for the mode of a module, and None where it is asked for outside of any.

    Dropout and norms, which do the same in both, do not count.

    Every module keeps `training` as an attribute of its own, which a property of the class goes before. For that
    while modules of other threads are collected too, and work as ever.
    """
    found = set[Forward | None]()

    def get(module: nn.Module) -> Any:
        if not isinstance(module, ALIKE):
            found.add(observer.running[-1] if observer.running else None)
        held = vars(module)
        return held["training"] if "training" in held else module.__getattr__("training")

    def put(module: nn.Module, value: Any) -> None:
        vars(module)["training"] = value

    with _ONE_AT_A_TIME:
        before = vars(nn.Module).get("training")
        nn.Module.training = property(get, put)  # type: ignore[assignment]
        try:
            yield found
        finally:
            if before is None:
                del nn.Module.training
            else:
                nn.Module.training = before


def alike(stage: Stage, asking: Set[Forward | None]) -> bool:
    """Whether all forwards that ask do the same to channels in both modes, tried out on each by itself.

    That can only be told of modules that are nothing but their forward, such as stochastic depth.
    """
    forwards = [forward for forward in asking if forward and _stands_alone(forward)]

    def run(training: bool) -> Recording:
        recorder = Recorder()
        outputs = stage.run(recorder, training=training, forward=lambda: [f.module(*f.inputs) for f in forwards])
        return Recording(tensors_in([f.inputs for f in forwards]), recorder.calls, outputs)

    if len(forwards) < len(asking):
        return False
    try:
        first, second = run(False), run(True)
    except Exception:
        return False
    return all(isinstance(output, Tensor) for output in first.outputs + second.outputs) and first.does_as(second)


def _stands_alone(forward: Forward) -> bool:
    # Inputs given by name are not known: there must be room for none.
    return forward.bare and len(signature(forward.module.forward).parameters) == len(forward.inputs)
