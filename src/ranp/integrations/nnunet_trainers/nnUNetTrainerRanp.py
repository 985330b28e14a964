"""Where nnU-Net finds the trainer of ranp, which prunes before it trains; nnU-Net imports every file of this folder."""

from importlib.util import find_spec

if find_spec("ranp"):  # Once ranp is uninstalled, a copy of this file must not stop nnU-Net.
    from ranp.integrations.nnunet import nnUNetTrainerRanp  # noqa: F401
