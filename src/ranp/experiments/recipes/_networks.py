"""The networks that a recipe can name."""

from torch import nn

from ranp import import_by_name as naming
from ranp.experiments.recipes._fields import Network
from ranp.models import BUILT_IN
from ranp.surgery import initialize


def build_network(network: Network, in_channels: int, classes: int, *, seed: int) -> nn.Module:
    """Build the full network with freshly drawn weights.

    Args:
        network: Name and arguments.
        in_channels: Channels of the data.
        classes: Classes of the data.
        seed: Of the weights; the global random state stays as it is.

    Raises:
        InputError: An unknown name, a factory that fails, or arguments that do not fit.

    Example:
        >>> import torch
        >>> model = build_network(Network(name="unet3d", arguments={"width": 4}), 1, 3, seed=0)
        >>> model(torch.zeros(2, 1, 8, 8, 8)).shape
        torch.Size([2, 3, 8, 8, 8])
    """
    classes_name = BUILT_IN[network.name].classes if network.name in BUILT_IN else "classes"
    arguments = {"in_channels": in_channels, classes_name: classes, **network.arguments}
    remedy = "the recipe's network.arguments come on top of the data's channels and classes"
    model = naming.build_network(network.name, arguments, seed=seed, where="network.name", remedy=remedy)
    if network.weights is not None:
        initialize(model, network.weights, seed)
    return model
