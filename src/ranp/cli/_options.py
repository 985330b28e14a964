"""Arguments and options that several commands share, and the completion of their values."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer
from typer.core import TyperCommand

from ranp.errors import nearest
from ranp.models import BUILT_IN

OWN = "package.module:factory or path/to/file.py:factory"
BATCHES = (
    f"{OWN}, which returns an iterable of (inputs, targets); a file with both (.npz, .safetensors, .pt); a recipe, "
    "with --folder; or noise"
)


# Options of ranp 0.1; they work until ranp 0.3.
OLD_OPTIONS = {
    "--lam": "--resource-weight",
    "--until": "--stop-at-correlation",
    "--beside": "--compare",
    "--figures": "--results",
}


class Command(TyperCommand):
    """A command that knows the old names of its options, and whose help looks up lists of names when it is shown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, in which today's names of options replace old ones."""
        own = {name for param in self.params for name in param.opts}
        for place, word in enumerate(args):
            old, equals, value = word.partition("=")
            if (new := OLD_OPTIONS.get(old)) in own:
                print(f"warning: {old} is deprecated; use {new}", file=sys.stderr)
                args[place] = f"{new}{equals}{value}"
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with lists of names in place of the placeholders."""
        params: list[Any] = self.params
        for param in params:
            if "{criteria}" in (text := getattr(param, "help", None) or ""):
                vars(param)["help"] = text.replace("{criteria}", ", ".join(complete_criteria("")))
        super().format_help(ctx, formatter)


def known_criterion(name: str) -> str:
    """Refuse a criterion that does not exist."""
    if name not in (known := complete_criteria("")):
        raise typer.BadParameter(f"{name!r} is not a criterion; {nearest(name, known)}")
    return name


def complete_criteria(incomplete: str) -> list[str]:
    """Names of the criteria."""
    from ranp.criteria import CRITERIA

    return _starting(sorted(CRITERIA), incomplete)


def complete_networks(incomplete: str) -> list[str]:
    """Built-in networks, and Python files that may contain one."""
    return _starting(BUILT_IN, incomplete) + [
        path if path.endswith("/") else f"{path}:" for path in _files(incomplete, ".py")
    ]


def complete_losses(incomplete: str) -> list[str]:
    """Names of losses."""
    from ranp.experiments.losses import LOSSES

    return _starting(LOSSES, incomplete)


def complete_limits(incomplete: str) -> list[str]:
    """The resources that a budget can limit."""
    from ranp.costs import RESOURCES

    return [f"{name}=" for name in _starting((resource.limit for resource in RESOURCES), incomplete)]


def complete_recipes(incomplete: str) -> list[str]:
    """Recipe files, and folders that may contain one."""
    return _files(incomplete, ".yaml") + [str(path) for path in Path().glob("recipes/*.yaml") if not incomplete]


def _starting(words: Iterable[str], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]


def _files(incomplete: str, suffix: str) -> list[str]:
    """Files whose path starts like this, and folders that may contain one."""
    head, slash, tail = incomplete.rpartition("/")
    folder = Path(head + slash or ".")
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    matching = [path for path in found if path.name.startswith(tail) and (tail or not path.name.startswith("."))]
    return [f"{head}{slash}{path.name}/" for path in matching if path.is_dir()] + [
        f"{head}{slash}{path.name}" for path in matching if path.suffix == suffix
    ]


WeightsName: TypeAlias = Literal["keep", "glorot", "orthogonal"]
ImportanceName: TypeAlias = Literal["parameter", "neuron"]
OptimizerName = Annotated[Literal["adamw", "adam", "sgd"], typer.Option(help="Optimizer of the training.")]
PrecisionName = Annotated[
    Literal["float32", "bf16-mixed", "16-mixed", "bfloat16"], typer.Option(help="Precision of the training.")
]
ChannelsLast = Annotated[
    bool, typer.Option("--channels-last", help="Train with convolutions in channels-last memory format.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Train the network compiled by torch.compile.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the training on the CPU.", show_default="as many as torch uses")
]
Times = Annotated[
    Path | None,
    typer.Option(
        help="File of measured step times, which is written if it does not exist.", show_default="in the cache"
    ),
]

Model = Annotated[
    str, typer.Argument(help=f"{', '.join(sorted(BUILT_IN))}; or {OWN}.", autocompletion=complete_networks)
]
Arguments = Annotated[
    list[str] | None, typer.Option("--set", help="Argument of the network, such as width=16; can be repeated.")
]
Shapes = Annotated[
    list[str] | None, typer.Option("--input", help="Shape of an input, such as 1,1,64,64,64; once per input.")
]
_LIMITS = typer.Option(
    "--budget",
    help="Such as macs=5%, step_time=80ms, train_memory=8GiB, params=1M (to keep) or sparsity=80% (to remove); can be "
    "repeated.",
    autocompletion=complete_limits,
)
Limits = Annotated[list[str], _LIMITS]
OptionalLimits = Annotated[list[str] | None, _LIMITS]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Weights = Annotated[
    WeightsName, typer.Option(help="Keep the weights of the remaining channels, or initialize them again.")
]
NewFolder = Annotated[Path, typer.Option("--out", help="A new folder.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the data set.")]
RecipeFile = Annotated[
    Path, typer.Argument(help="A recipe: a YAML file, such as those in recipes/.", autocompletion=complete_recipes)
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field, such as training.steps=10; can be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else, to stdout.")]
