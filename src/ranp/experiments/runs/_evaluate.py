"""Judging the best weights of a run on a data set's folder."""

import time
from pathlib import Path
from typing import Any

from ranp.experiments.recipes import parse_recipe
from ranp.experiments.runs._devices import make_fabric
from ranp.experiments.runs._faults import translate_errors
from ranp.experiments.runs._folder import EVALUATION, VERSION, RunFolder, read_json
from ranp.experiments.runs._progress import read_best
from ranp.experiments.runs._train import best_model
from ranp.experiments.runs._validation import validate
from ranp.files import write_json
from ranp.progress import Progress


def evaluate_run(out: Path, data: Path, *, tell: Progress) -> dict[str, Any]:
    """Evaluate the best weights of a run, finished or not, by the data set's metric.

    Args:
        out: Folder of the run.
        data: Folder of the data set.
        tell: Told of progress.

    Returns:
        The figures, as written to `evaluation.json`.

    Raises:
        RanpError: The folder is no run's, it has no weights yet, or data are missing.
    """
    folder = RunFolder(out)
    recipe = parse_recipe(read_json(folder.record)["recipe"], str(folder.record))
    best = read_best(folder.best)
    training = recipe.training
    with translate_errors("evaluation", memory="lower training.batch", disk="make room and evaluate again"):
        bundle = recipe.data_set().open(data, progress=tell)
        fabric = make_fabric(training.precision)
        model = best_model(folder, recipe, bundle).to(fabric.device)
        begin = time.perf_counter()
        figures = validate(fabric, model, bundle, batch=training.batch, workers=training.workers, tell=tell)
        found = {
            "format": EVALUATION,
            "version": VERSION,
            "step": best["step"],
            "primary_metric": bundle.primary_metric,
            "figures": figures,
            "seconds": time.perf_counter() - begin,
        }
        write_json(folder.evaluation, found)
    return found
