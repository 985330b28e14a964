"""A run in one screen: open the data, prune, train, and say what came out."""

import shutil
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

import ranp
from ranp.environment import hardware, versions
from ranp.experiments.data import DataBundle
from ranp.experiments.recipes import Recipe
from ranp.experiments.runs._devices import make_fabric
from ranp.experiments.runs._faults import translate_errors
from ranp.experiments.runs._folder import FORMAT, VERSION, RunFolder, lock_run_dir, read_json
from ranp.experiments.runs._loop import Trial, fit
from ranp.experiments.runs._progress import Progress as Done
from ranp.experiments.runs._pruning import network_of, pruned_network
from ranp.files import write_json
from ranp.module_utils import preserve_rng
from ranp.progress import Progress
from ranp.storage import load_plan, read_weights

MEMORY = {
    "pruning": "lower pruning.batch or the size in pruning.data",
    "training": "lower training.batch, the size of the data, or pruning.budget",
}


def run_recipe(recipe: Recipe, data: Path, out: Path, *, resume: bool, tell: Progress) -> dict[str, Any]:
    """Prune and train as a recipe says, or go on with that where it was stopped.

    Args:
        recipe: What to do.
        data: Folder of the data set.
        out: Folder of the run; new, unless it is resumed.
        resume: Go on with the run in the folder, if there is one.
        tell: Told of progress.

    Returns:
        The figures in `result.json`.

    Raises:
        RanpError: The folder is taken, data are missing, a budget cannot be met, memory or disk are short, ...
            Whatever had been done is kept, and the run can be resumed.
    """
    fabric = make_fabric(recipe.training.precision, RunFolder(out).logs, start=_step_of(RunFolder(out)))
    fabric.launch()
    disk = f"the last checkpoint in {out} is whole: make room and go on with --resume"
    with _entered(fabric, recipe, out, resume=resume) as folder:
        if folder.result.exists():
            return read_json(folder.result)
        bundle, model, facts = _pruned(folder, recipe, data, fabric, disk, tell)
        with translate_errors("training", memory=MEMORY["training"], disk=disk), preserve_rng(model):
            trial = Trial(folder, recipe, bundle, fabric, model, tell)
            done = fit(trial)
            if fabric.is_global_zero:
                fabric.logger.finalize("success")
                _export(folder, recipe, bundle)
                write_json(folder.result, _result(trial, done, facts))
            fabric.barrier()
        return read_json(folder.result)


def prune_recipe(recipe: Recipe, data: Path, out: Path, *, resume: bool, tell: Progress) -> dict[str, Any]:
    """The first half of `run_recipe`: prune and stop; resuming the run would train it.

    Args:
        recipe: What to do.
        data: Folder of the data set.
        out: Folder of the run; new, unless it is resumed.
        resume: Go on with the run in the folder, if there is one.
        tell: Told of progress.

    Returns:
        The figures in `pruning.json`.

    Raises:
        RanpError: As `run_recipe`.
    """
    fabric = make_fabric(recipe.training.precision)
    fabric.launch()
    with _entered(fabric, recipe, out, resume=resume) as folder:
        return _pruned(folder, recipe, data, fabric, f"make room and go on with {out}", tell)[2]


def _pruned(
    folder: RunFolder, recipe: Recipe, data: Path, fabric: Any, disk: str, tell: Progress
) -> tuple[DataBundle, torch.nn.Module, dict[str, Any]]:
    with translate_errors("opening the data set", memory="lower data.cache or data.size", disk=disk):
        bundle = recipe.data_set().open(data, progress=tell)
    with translate_errors("pruning", memory=MEMORY["pruning"], disk=disk):
        return bundle, *pruned_network(folder, recipe, data, bundle, fabric=fabric, tell=tell)


@contextmanager
def _entered(fabric: Any, recipe: Recipe, out: Path, *, resume: bool) -> Iterator[RunFolder]:
    """The run's folder, which the first process claims for all."""
    with ExitStack() as stack:
        if fabric.is_global_zero:
            stack.enter_context(lock_run_dir(out, recipe.model_dump(mode="json"), resume=resume))
        fabric.barrier()
        yield RunFolder(out)


def _step_of(folder: RunFolder) -> int:
    """Steps that the last checkpoint holds."""
    if not folder.last.exists():
        return 0
    try:
        return int(torch.load(folder.last, map_location="cpu", weights_only=True)["progress"]["step"])
    except Exception:  # Reported in full where the checkpoint is used.
        return 0


def _export(folder: RunFolder, recipe: Recipe, bundle: DataBundle) -> None:
    """Write the best weights as a network that `ranp.load` reads."""
    shutil.rmtree(folder.model, ignore_errors=True)
    model = best_model(folder, recipe, bundle)
    ranp.save(model, load_plan(folder.plan), folder.model)


def best_model(folder: RunFolder, recipe: Recipe, bundle: DataBundle) -> torch.nn.Module:
    """The pruned network with the weights of the best validation, on the CPU.

    Raises:
        ArtifactError: There was no validation yet, or a file is damaged.
    """
    model = ranp.load(folder.plan, network_of(recipe, bundle))
    read_weights(model, folder.best)
    return model


def _result(trial: Trial, done: Done, facts: dict[str, Any]) -> dict[str, Any]:
    device = trial.fabric.device
    on_cuda = device.type == "cuda"
    return {
        "format": FORMAT,
        "version": VERSION,
        "method": facts["method"],
        "seed": trial.recipe.seed,
        "primary_metric": trial.bundle.primary_metric,
        "best": done.best,
        "last": done.curve[-1] if done.curve else None,
        "steps": done.step,
        "steps_asked": trial.steps,
        "seconds": done.seconds,
        "seconds_waiting": done.waited,
        "step_seconds": statistics.median(done.durations),
        "pruning_seconds": facts["seconds"],
        "scoring_batches": facts["batches"],
        "scoring_stability": facts["stability"],
        "batch": trial.recipe.training.batch * trial.fabric.world_size,
        "cost": facts["cost"],
        "full_cost": facts["full_cost"],
        "device": torch.cuda.get_device_name(device) if on_cuda else f"cpu, {torch.get_num_threads()} threads",
        "hardware": hardware(device),
        "processes": trial.fabric.world_size,
        "versions": versions(("ranp", "torch", "lightning")),
    }
