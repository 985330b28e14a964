"""`ranp nnunet`: two ways to make the trainer available to nnU-Net."""

from pathlib import Path

from ranp.errors import RanpError
from ranp.files import write_bytes
from ranp.optional import optional_import

TRAINERS = Path(__file__).parents[1] / "integrations" / "nnunet_trainers"
MODULE = TRAINERS / "nnUNetTrainerRanp.py"


def install() -> None:
    """Copy a small file into nnU-Net's folder of trainers. To undo this, delete the file, whose path is printed."""
    package = optional_import("nnunetv2.training.nnUNetTrainer", "nnunet install", extra="nnunet")
    target = Path(package.__path__[0]) / MODULE.name
    try:
        write_bytes(target, MODULE.read_bytes())
    except OSError as error:
        hint = 'instead, set nnUNet_extTrainer="$(ranp nnunet path)" wherever nnU-Net trains or predicts'
        raise RanpError("nnunet install", f"cannot write {target}: {error}", hint=hint) from error
    print(target)


def path() -> None:
    """Print the folder to set as nnUNet_extTrainer (nnU-Net 2.8 and newer), an alternative to installing a file."""
    print(TRAINERS)
