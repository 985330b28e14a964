"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from ranp.cli import _words as words

OWN = "package.module:factory or path/to/file.py:factory"

Model = Annotated[str, typer.Argument(help=f"{', '.join(words.NETWORKS)}; or {OWN}.", autocompletion=words.networks)]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Argument that the network is built with, such as width=16; repeat for several."),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--input", help="Shape of an input, such as 1,1,64,64,64; repeat for several."),
]
_LIMITS = typer.Option(
    "--budget",
    help="Such as macs=5%, params=0.1, activations=50% (to keep) or sparsity=80% (to remove); repeat for several.",
    autocompletion=words.limits,
)
Limits = Annotated[list[str], _LIMITS]
OptionalLimits = Annotated[list[str] | None, _LIMITS]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is drawn.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Weights = Annotated[words.Weights, typer.Option(help="Keep the network's weights that survive, or draw them anew.")]
NewFolder = Annotated[Path, typer.Option("--out", help="A new folder.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder of the data set.")]
RecipeFile = Annotated[
    Path, typer.Argument(help="A recipe: a YAML file, such as those in recipes/.", autocompletion=words.recipes)
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change a field, such as training.steps=10; repeat for several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
