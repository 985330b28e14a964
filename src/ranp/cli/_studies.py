"""`ranp reproduce NAME` of every study; what it needs is imported when it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ranp.cli._options import AsJson
from ranp.cli._output import print_json, stdout, working
from ranp.cli._runs import need_recipes
from ranp.errors import InputError
from ranp.experiments.studies import Study
from ranp.files import is_rank_zero

if TYPE_CHECKING:
    from ranp.experiments.studies import Results, StudyRequest

Data = Annotated[
    list[str] | None, typer.Option(help="Folder of the data set; of several tasks: TASK=FOLDER, once for each.")
]
Out = Annotated[Path, typer.Option(help="Folder of all runs and figures; what is finished in it is not done again.")]
Small = Annotated[
    bool, typer.Option("--small", help="Small recipes, on data that ranp writes into OUT if none is given.")
]
Seeds = Annotated[int | None, typer.Option(min=1, help="How many seeds.", show_default="the study's; 1 with --small")]
Only = Annotated[list[str] | None, typer.Option(help="Run this variant only; repeat for several.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field of all recipes, such as training.steps=10; repeat.")
]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="Start from this recipe instead of the study's.")]
Collect = Annotated[bool, typer.Option("--collect", help="Run nothing: show what is finished.")]
Measure = Annotated[
    bool, typer.Option("--measure", help="Then measure steps of all variants anew; the machine must be idle.")
]
Known = Annotated[
    list[Path] | None,
    typer.Option("--results", "--figures", help="results.json of elsewhere: its runs are not run again; repeat."),
]
Page = Annotated[Path | None, typer.Option(help="Where to write the page.", show_default="OUT/results.md")]


def command_of(study: Study) -> Callable[..., None]:
    """The command that runs a study."""

    def reproduce(
        out: Out,
        data: Data = None,
        small: Small = False,
        seeds: Seeds = None,
        only: Only = None,
        changes: Changes = None,
        recipe: RecipeFile = None,
        collect: Collect = False,
        measure: Measure = False,
        known: Known = None,
        page: Page = None,
        as_json: AsJson = False,
    ) -> None:
        need_recipes()
        from ranp.experiments.studies import RESULTS_FILE, StudyRequest, generate_data, read_results

        request = StudyRequest(
            study=study,
            out=out,
            data=_folders(study, out, data or [], small=small or (collect and not measure)),
            small=small,
            seeds=seeds or (1 if small else study.seeds),
            only=tuple(only or ()),
            changes=tuple(changes or ()),
            recipe=recipe,
        )
        if small and not data and not collect:
            generate_data(request)
        results = read_results(study.name, [out / RESULTS_FILE, *(known or [])])
        _compute(request, results, collect=collect, measure=measure)
        if is_rank_zero():
            _show(request, results, page or out / "results.md", as_json=as_json)

    reproduce.__doc__ = study.question
    return reproduce


def _folders(study: Study, out: Path, given: list[str], *, small: bool) -> dict[str, Path]:
    """The data's folder of each task."""
    if not given and small:
        return {task: out / "data" / task for task in study.tasks}
    pairs = [text.partition("=") for text in given]
    folders = (
        {"": Path(given[-1])} if list(study.tasks) == [""] and given else {name: Path(path) for name, _, path in pairs}
    )
    if folders.keys() != study.tasks.keys():
        wanted = " ".join(f"--data {task}=FOLDER" if task else "--data FOLDER" for task in study.tasks)
        raise InputError("--data", got=" ".join(given) or "nothing", expected=wanted, hint="or --small, to try it")
    return folders


def _compute(request: "StudyRequest", results: "Results", *, collect: bool, measure: bool) -> None:
    from ranp.experiments import studies

    with working(bars=is_rank_zero()) as progress:
        if collect:
            studies.collect(request, results)
        else:
            studies.run_study(request, results, progress=progress)
        if measure and request.study.trains:
            studies.measure_study(request, results, progress=progress)
        if measure and request.study.batches:
            studies.measure_batches(request, results, progress=progress)


def _show(request: "StudyRequest", results: "Results", page: Path, *, as_json: bool) -> None:
    from ranp.experiments.studies import study_tables, write_page

    write_page(request, results, page)
    if as_json:
        print_json("study", results, version=results["version"])
        return
    console = stdout()
    for table in study_tables(request, results):
        console.print(table)
    console.print(f"The page is {page}; all results are in {request.out}.", soft_wrap=True)
