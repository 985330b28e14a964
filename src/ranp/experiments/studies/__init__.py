"""Studies: comparisons of pruned networks, each a set of runs, tables, plots and a page.

The studies themselves are plain data and cheap to import. Everything else needs torch and the extra `train`, and is
imported when it is first used. A `StudyRequest` says which study to run or show, with which data, recipes and seeds, in
which folder; the results are plain data, which functions add to (`run_study`, `collect`, `measure_study`,
`measure_batches`) or show (`study_tables`, `write_plots`, `write_page`).

Example:
    >>> from pathlib import Path
    >>> from ranp.experiments.studies import STUDIES, StudyRequest
    >>> sorted(STUDIES)[:3]
    ['2d', 'batch', 'deep']
    >>> request = StudyRequest(STUDIES["hippocampus"], out=Path("out"), data={"": Path("Task04_Hippocampus")})
    >>> [variant.label for variant in request.variants()][:2]
    ['full', 'random-5']
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ranp.deprecation import renamed_names
from ranp.experiments.studies._studies import STUDIES, RecipeChoice, Study, Task, Variant

if TYPE_CHECKING:
    from ranp.experiments.studies._measuring import measure_batches, measure_study
    from ranp.experiments.studies._page import study_tables, write_page
    from ranp.experiments.studies._plots import write_plots
    from ranp.experiments.studies._results import RESULTS_FILE, Results, read_results
    from ranp.experiments.studies._running import StudyRequest, collect, generate_data, run_study
else:
    _MODULES = {
        "_measuring": ("measure_batches", "measure_study"),
        "_page": ("study_tables", "write_page"),
        "_plots": ("write_plots",),
        "_results": ("RESULTS_FILE", "Results", "read_results"),
        "_running": ("StudyRequest", "collect", "generate_data", "run_study"),
    }

    _renamed = renamed_names(__name__, {"Setting": "RecipeChoice"})

    def __getattr__(name: str):
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        return _renamed(name)


__all__ = [
    "RESULTS_FILE",
    "STUDIES",
    "RecipeChoice",
    "Results",
    "Study",
    "StudyRequest",
    "Task",
    "Variant",
    "collect",
    "generate_data",
    "measure_batches",
    "measure_study",
    "read_results",
    "run_study",
    "study_tables",
    "write_page",
    "write_plots",
]
