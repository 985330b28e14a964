"""Studies: comparisons of pruned networks, each a set of runs, tables, plots and a page.

The studies themselves are plain data and cheap to import. Everything else needs torch and the extra `train`: a
`running.StudyRequest` says which study to run or show, with which data, recipes and seeds, in which folder; `results`
are plain data, to which `running` and `measuring` add, and which `page` shows.

Example:
    >>> from pathlib import Path
    >>> from ranp.experiments.studies.running import StudyRequest
    >>> sorted(STUDIES)[:3]
    ['2d', 'batch', 'deep']
    >>> request = StudyRequest(STUDIES["hippocampus"], out=Path("out"), data={"": Path("Task04_Hippocampus")})
    >>> [variant.label for variant in request.variants()][:2]
    ['full', 'random-5']
"""

from ranp.experiments.studies._studies import STUDIES, RecipeChoice, Study, Task, Variant

__all__ = ["STUDIES", "RecipeChoice", "Study", "Task", "Variant"]
