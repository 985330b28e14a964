"""A run from beginning to end: open the data, prune, train, write the results."""

import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

import ranp
from ranp.environment import hardware, versions
from ranp.experiments import recipes
from ranp.experiments.runs._folder import RunFolder, check_same_recipe, lock_run_dir
from ranp.experiments.runs._machine import make_fabric, translate_errors
from ranp.experiments.runs._networks import best_model, pruned_network
from ranp.experiments.runs.loop import Run, fit
from ranp.optional import optional_import
from ranp.progress import Progress, no_progress
from ranp.storage import load_plan


def run_recipe(
    recipe: "recipes.Recipe", data: Path, out: Path, *, resume: bool = False, progress: Progress = no_progress
) -> dict[str, Any]:
    """Prune and train as a recipe says, or continue where that was interrupted.

    Args:
        recipe: What to do.
        data: Folder of the data set.
        out: Folder of the run; new, unless it is resumed.
        resume: Resume the run in the folder, if there is one.
        progress: Progress callback.

    Returns:
        The results, as in `result.json`.

    Raises:
        RanpError: The folder exists, data are missing, a budget cannot be met, memory or disk are short, ...
            Whatever was done is kept, and the run can be resumed.
    """
    folder = RunFolder(out)
    if resume and folder.result.exists():
        check_same_recipe(str(out), folder.read_recipe(), recipe.model_dump(mode="json"))
        return folder.read(folder.result)
    with open_run(recipe, data, out, resume=resume, progress=progress) as run:
        for _ in fit(run):
            pass
        return finish_run(run)


def prune_recipe(
    recipe: "recipes.Recipe", data: Path, out: Path, *, resume: bool = False, progress: Progress = no_progress
) -> dict[str, Any]:
    """The first half of `run_recipe`, with the same arguments and errors: prune only; resuming the run trains it.

    Returns:
        The results, as in `pruning.json`.
    """
    with open_run(recipe, data, out, resume=resume, progress=progress) as run:
        return run.folder.read(run.folder.pruning)


@contextmanager
def open_run(
    recipe: "recipes.Recipe",
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> Iterator[Run]:
    """Begin or resume a run and prune its network; the caller trains it with `fit` and ends it with `finish_run`.

    Arguments and errors are those of `run_recipe`; `device` is the best device of the machine if not given. The folder
    is locked until the end of the context, by the first process for all.
    """
    folder = RunFolder(out)
    disk = f"free disk space and resume the run in {out} with --resume"
    optional_import("tensorboard", "train")  # Now, not when the first event is written.
    fabric = make_fabric(recipe.training.precision, device)
    fabric.launch()
    recipe_now = recipe.model_dump(mode="json")
    with lock_run_dir(out, recipe_now, resume=resume) if fabric.is_global_zero else nullcontext():
        fabric.barrier()
        with translate_errors("opening the data set", memory="lower data.cache or data.size", disk=disk):
            bundle = recipe.data_set().open(data, progress=progress)
        with translate_errors("pruning", memory="lower pruning.batch or the size in pruning.data", disk=disk):
            model, results, scores = pruned_network(folder, recipe, data, bundle, fabric=fabric, progress=progress)
        yield Run(folder, recipe, bundle, fabric, model, results, scores, progress)


def finish_run(run: Run) -> dict[str, Any]:
    """Write the best weights as a network that `ranp.load` reads, and return the results, as in `result.json`."""
    folder = run.folder
    disk = f"free disk space and resume the run in {folder.path} with --resume"
    with translate_errors("training", memory="", disk=disk):
        if run.fabric.is_global_zero:
            run.events.close()
            shutil.rmtree(folder.model, ignore_errors=True)
            ranp.save(best_model(folder, run.recipe, run.bundle), load_plan(folder.plan), folder.model)
            folder.write(folder.result, _result(run))
        run.fabric.barrier()
    return folder.read(folder.result)


def _result(run: Run) -> dict[str, Any]:
    device, state, pruning = run.fabric.device, run.state, run.pruning
    on_cuda = device.type == "cuda"
    return {
        "method": pruning["method"],
        "seed": run.recipe.seed,
        "primary_metric": run.bundle.primary_metric,
        "best": state.best,
        "last": state.curve[-1] if state.curve else None,
        "steps": state.step,
        "steps_asked": run.steps,
        "seconds": state.seconds,
        "seconds_waiting": state.waited,
        "step_seconds": statistics.median(state.durations),
        "pruning_seconds": pruning["seconds"],
        "scoring_batches": pruning["batches"],
        "scoring_stability": pruning["stability"],
        "batch": run.recipe.training.batch * run.fabric.world_size,
        "cost": pruning["cost"],
        "full_cost": pruning["full_cost"],
        "device": torch.cuda.get_device_name(device) if on_cuda else f"cpu, {torch.get_num_threads()} threads",
        "hardware": hardware(device),
        "processes": run.fabric.world_size,
        "versions": versions(("ranp", "torch", "lightning")),
    }
