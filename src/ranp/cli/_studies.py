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
from ranp.files import is_rank_zero, write_bytes

if TYPE_CHECKING:
    from ranp.experiments.studies._figures import Figures
    from ranp.experiments.studies._request import Request

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
    typer.Option("--figures", help="results.json of elsewhere: its runs are not run again; repeat."),
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
        from ranp.experiments.studies._figures import FILE, read_figures
        from ranp.experiments.studies._request import Request

        request = Request(
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
            _generate(request)
        figures = read_figures(study.name, [out / FILE, *(known or [])])
        _compute(request, figures, collect=collect, measure=measure)
        if is_rank_zero():
            _show(request, figures, page or out / "results.md", as_json=as_json)

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


def _compute(request: "Request", figures: "Figures", *, collect: bool, measure: bool) -> None:
    from ranp.experiments.studies import _batches, _measure, _run

    with working(bars=is_rank_zero()) as tell:
        if collect:
            _run.collect(request, figures)
        else:
            _run.run_study(request, figures, tell=tell)
            _run.collect(request, figures)
        if measure and request.study.trains:
            _measure.measure_study(request, figures, tell=tell)
        if measure and request.study.batches:
            _batches.measure_batches(request, figures, tell=tell)


def _generate(request: "Request") -> None:
    """Write the data of each task, unless that has been done."""
    for task, folder in request.data.items():
        if not folder.exists():
            request.base(task).data_set().generate(folder, count=request.study.tasks[task].count, seed=0)


def _show(request: "Request", figures: "Figures", page: Path, *, as_json: bool) -> None:
    from rich.table import Table

    from ranp.experiments.studies._page import make_page, tables_of
    from ranp.experiments.studies._pictures import write_pictures

    page.parent.mkdir(parents=True, exist_ok=True)
    pictures = write_pictures(request.study, figures, page.parent / "images")
    write_bytes(page, make_page(request, figures, pictures, page).encode())
    if as_json:
        print_json("study", figures)
        return
    console = stdout()
    for title, table in tables_of(request, figures).items():
        shown = Table(*table.header, title=title)
        shown.columns[0].no_wrap = True
        for column in shown.columns[1:]:
            column.justify = "right"
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    console.print(f"The page is {page}; all figures are in {request.out}.", soft_wrap=True)
