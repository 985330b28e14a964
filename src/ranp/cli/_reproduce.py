"""`ranp reproduce`: the published resource table, and one command for every study."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ranp.cli._options import AsJson, Changes, Command, Seed
from ranp.cli._output import print_results, working
from ranp.errors import InputError
from ranp.files import is_rank_zero

if TYPE_CHECKING:
    from ranp.experiments.studies import Study


class Reproduce(TyperGroup):
    """The commands of `ranp reproduce`, built from the list of studies when they are listed or one of them is run."""

    @cached_property
    def _built(self) -> Any:
        from ranp.experiments.studies import STUDIES

        group = typer.Typer(add_completion=False)
        group.command(epilog="Example: ranp reproduce resources --networks shapenet")(resources)
        for name, study in STUDIES.items():
            example = f"Example: ranp reproduce {name} --small --out {name}"
            group.command(name, cls=Command, epilog=example)(command_of(study))
        return typer.main.get_command(group)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands."""
        return list(self._built.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name."""
        return self._built.commands.get(cmd_name)


def _complete_published(incomplete: str) -> list[str]:
    from ranp.experiments.reproduce.networks import NETWORKS

    return [name for name in NETWORKS if name.startswith(incomplete)]


def resources(
    networks: Annotated[
        list[str] | None,
        typer.Option(
            help="Networks of the table, such as shapenet; separated by commas, or repeat the option.",
            show_default="all",
            autocompletion=_complete_published,
        ),
    ] = None,
    seed: Seed = 0,
    batches: Annotated[int, typer.Option(min=1, help="Number of synthetic mini-batches to score on.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Compute the resource table of the source paper, and compare it with the published values."""
    from dataclasses import asdict

    from rich.text import Text

    from ranp.experiments.reproduce.networks import NETWORKS
    from ranp.experiments.reproduce.resources import NOTE, resource_tables, run_resources

    names = [name for option in networks or NETWORKS for name in option.split(",")]
    with working() as progress:
        rows = run_resources(names, seed=seed, batches=batches, progress=progress)
    results = {"seed": seed, "batches": batches, "rows": [asdict(row) for row in rows]}
    print_results("resources", results, *resource_tables(rows), Text(NOTE), as_json=as_json)


# -- studies -----------------------------------------------------------------------------------------------------


def command_of(study: "Study") -> Callable[..., None]:
    """The command that runs a study."""

    def reproduce(
        out: Annotated[
            Path, typer.Option(help="Folder of all runs and results; finished runs in it are not repeated.")
        ],
        data: Annotated[
            list[str] | None,
            typer.Option(help="Folder of the data set; for a study with several tasks TASK=FOLDER, once per task."),
        ] = None,
        small: Annotated[
            bool, typer.Option("--small", help="Use small recipes, and generated data in OUT if no data are given.")
        ] = False,
        seeds: Annotated[
            int | None, typer.Option(min=1, help="Number of seeds.", show_default="the study's; 1 with --small")
        ] = None,
        only: Annotated[list[str] | None, typer.Option(help="Run only this variant; can be repeated.")] = None,
        changes: Changes = None,
        recipe: Annotated[Path | None, typer.Option("--recipe", help="Use this recipe instead of the study's.")] = None,
        collect: Annotated[
            bool, typer.Option("--collect", help="Run nothing; only show the results of finished runs.")
        ] = False,
        measure: Annotated[
            bool,
            typer.Option("--measure", help="Measure the training steps of all variants; the machine must be idle."),
        ] = False,
        known: Annotated[
            list[Path] | None,
            typer.Option(
                "--results", help="results.json of another folder; its runs are not repeated. Can be repeated."
            ),
        ] = None,
        page: Annotated[
            Path | None, typer.Option(help="Where to write the page.", show_default="OUT/results.md")
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        from ranp.experiments.studies import measuring, running
        from ranp.experiments.studies.page import study_tables, write_page
        from ranp.experiments.studies.results import RESULTS_FILE, read_results

        request = running.StudyRequest(
            study=study,
            out=out,
            data=_data_folders(study, out, data or [], generated=small or (collect and not measure)),
            small=small,
            seeds=seeds or (1 if small else study.seeds),
            only=tuple(only or ()),
            changes=tuple(changes or ()),
            recipe=recipe,
        )
        if small and not data and not collect:
            running.generate_data(request)
        results = read_results(study.name, [out / RESULTS_FILE, *(known or [])])
        with working() as progress:
            if collect:
                running.collect(request, results)
            else:
                running.run_study(request, results, progress=progress)
            if measure:
                measuring.measure_study(request, results, progress=progress)
        page = page or out / "results.md"
        if is_rank_zero():
            write_page(request, results, page)
        note = f"The page is {page}; all results are in {out}."
        tables = study_tables(request, results)
        print_results("study", results, *tables, note, as_json=as_json, version=results["version"])

    reproduce.__doc__ = study.question
    return reproduce


def _data_folders(study: "Study", out: Path, given: list[str], *, generated: bool) -> dict[str, Path]:
    """The folder of the data set of each task."""
    if not given and generated:
        return {task: out / "data" / task for task in study.tasks}
    if list(study.tasks) == [""] and given:
        return {"": Path(given[-1])}
    folders = {name: Path(path) for name, _, path in (text.partition("=") for text in given)}
    if folders.keys() != study.tasks.keys():
        wanted = " ".join(f"--data {task}=FOLDER" if task else "--data FOLDER" for task in study.tasks)
        raise InputError("--data", got=" ".join(given) or "nothing", expected=wanted, hint="or try it with --small")
    return folders
