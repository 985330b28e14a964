"""The networks that a recipe can name."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ranp.errors import InputError, RanpError, nearest
from ranp.models import BUILT_IN
from ranp.recipes._fields import Network
from ranp.surgery._initialise import redraw


def build_network(network: Network, in_channels: int, classes: int, *, seed: int) -> nn.Module:
    """Build the full network with freshly drawn weights.

    Args:
        network: Name and arguments.
        in_channels: Channels of the data.
        classes: Classes of the data.
        seed: Of the weights; the global random state stays as it is.

    Raises:
        InputError: An unknown name, or arguments that do not fit.

    Example:
        >>> model = build_network(Network(name="unet3d", arguments={"width": 4}), 1, 3, seed=0)
        >>> model(torch.zeros(2, 1, 8, 8, 8)).shape
        torch.Size([2, 3, 8, 8, 8])
    """
    make, classes_name = _maker(network.name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model: Any = make(**{"in_channels": in_channels, classes_name: classes, **network.arguments})
        except RanpError:
            raise
        except Exception as error:  # Whatever a user's factory raises.
            given = ", ".join(f"{name}={value!r}" for name, value in network.arguments.items()) or "none"
            raise InputError(
                f"network {network.name}",
                got=f"{type(error).__name__}: {error}",
                expected=f"arguments that it takes; the recipe's are: {given}",
            ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"network {network.name}", got=type(model).__name__, expected="a torch.nn.Module")
    if network.weights is not None:
        redraw(model, network.weights, seed)
    return model


def _maker(name: str) -> tuple[Callable[..., Any], str]:
    if ":" not in name:
        if name not in BUILT_IN:
            hint = f"{nearest(name, BUILT_IN)}; for your own network give package.module:factory"
            raise InputError("network.name", got=repr(name), expected="a network", hint=hint)
        built = BUILT_IN[name]
        return built.build, built.classes
    path, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(path), attribute), "classes"
    except (ImportError, AttributeError, ValueError) as error:
        expected = "a function of (in_channels, classes) in a module that can be imported"
        raise InputError("network.name", got=f"{name!r} ({error})", expected=expected) from error
