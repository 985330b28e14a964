"""`ranp nnunet`: two ways to have nnU-Net find the trainer; what they need is imported when they run."""

from importlib.util import find_spec
from pathlib import Path

from ranp.errors import RanpError
from ranp.files import write_bytes

TRAINERS = Path(__file__).parents[1] / "integrations" / "nnunet_trainers"
MODULE = TRAINERS / "nnUNetTrainerRanp.py"


def install() -> None:
    """Copy a file of a few lines into nnU-Net's folder of trainers, once; delete it to undo that."""
    package = "nnunetv2.training.nnUNetTrainer"
    try:
        found = find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise RanpError(
            "nnunet install",
            got="no package nnunetv2",
            expected="nnU-Net v2 in this environment",
            hint="run: pip install 'ranp[nnunet]'",
        )
    target = Path(found.submodule_search_locations[0]) / MODULE.name
    try:
        write_bytes(target, MODULE.read_bytes())
    except OSError as error:
        hint = 'instead, set nnUNet_extTrainer="$(ranp nnunet path)" wherever nnU-Net trains or predicts'
        raise RanpError("nnunet install", got=str(error), expected=f"to write {target}", hint=hint) from error
    print(target)


def path() -> None:
    """Print the folder to name in nnUNet_extTrainer, which nnU-Net 2.8 and newer read, instead of installing a file."""
    print(TRAINERS)
