"""`ranp nnunet`: two ways to make the trainer available to nnU-Net, and what fits into memory."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ranp.cli import _options as options
from ranp.cli._fit import Macs, Memory, print_fit
from ranp.cli._output import working
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


def fit(
    plans: Annotated[Path, typer.Argument(help="nnU-Net's plans, such as nnUNetPlans.json.")],
    configuration: Annotated[str, typer.Option(help="A configuration of the plans.")] = "3d_fullres",
    dataset: Annotated[
        Path | None, typer.Option(help="dataset.json of the data set.", show_default="that in the folder of the plans")
    ] = None,
    memory: Memory = None,
    macs: Macs = None,
    device: Annotated[str, typer.Option(help="cpu or cuda; with --memory, it need not exist here.")] = "cuda",
    as_json: options.AsJson = False,
) -> None:
    """Show which width, batch size and patch size of a configuration fit into memory in nnU-Net's training.

    No training step is run. On a GPU, nnU-Net trains in mixed precision.
    """
    import torch

    import ranp
    from ranp.experiments.losses import objective
    from ranp.fitting import CRITERION, FRACTIONS
    from ranp.integrations.nnunet_plans import read_planned_network

    with working() as progress:
        planned = read_planned_network(plans, configuration, dataset)
        loss = objective("dice-cross-entropy")

        def deep_supervision(outputs: Any, targets: Any) -> Any:
            # nnU-Net gives the output at the lowest resolution no weight.
            return sum(loss(output, target) for output, target in zip(outputs[:-1], targets, strict=False))

        def optimizer(parameters: Any) -> Any:
            return torch.optim.SGD(parameters, lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)

        setup = ranp.TrainingSetup(
            loss_fn=deep_supervision,
            batch=(planned.inputs, planned.targets),
            optimizer=optimizer,
            precision="float32" if device == "cpu" else "16-mixed",
            device=device,
        )
        found = ranp.fit(
            planned.model,
            planned.inputs,
            setup,
            memory=memory,
            macs=macs or FRACTIONS,
            multiple=planned.multiple,
            progress=progress,
        )

    def command(limit: str) -> str:
        name, _, value = limit.partition("=")
        words = shlex.join(["nnUNetv2_train", planned.dataset, configuration, "0", "-tr", "nnUNetTrainerRanp"])
        return f"nnUNet_ranp_{name}={value} nnUNet_ranp_criterion={CRITERION} {words}"

    settings = {"plans": str(plans), "configuration": configuration, "precision": setup.precision, "device": device}
    print_fit("nnunet-fit", settings, found, command, as_json=as_json)
