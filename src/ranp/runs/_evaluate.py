"""Judging the best weights of a run on a data set's folder."""

import time
from pathlib import Path
from typing import Any

from ranp.data import Progress
from ranp.files import write_json
from ranp.recipes import parse_recipe
from ranp.runs._devices import make_fabric
from ranp.runs._faults import explained
from ranp.runs._folder import EVALUATION, VERSION, RunFolder, read_json
from ranp.runs._progress import read_best
from ranp.runs._train import best_model
from ranp.runs._validation import validate


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
    with explained("evaluation", memory="lower training.batch", disk="make room and evaluate again"):
        opened = recipe.data_set().open(data, progress=tell)
        fabric = make_fabric(training.precision)
        model = best_model(folder, recipe, opened).to(fabric.device)
        begin = time.perf_counter()
        figures = validate(fabric, model, opened, batch=training.batch, workers=training.workers, tell=tell)
        found = {
            "format": EVALUATION,
            "version": VERSION,
            "step": best["step"],
            "headline": opened.headline,
            "figures": figures,
            "seconds": time.perf_counter() - begin,
        }
        write_json(folder.evaluation, found)
    return found
