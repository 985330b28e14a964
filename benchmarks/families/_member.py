"""What the zoo is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Pick(Protocol):
    """Chooses between what a network has at full size and what it has in the small zoo."""

    def __call__(self, full: T, small: T) -> T: ...


def full_size(full: T, small: T) -> T:
    """Networks as people use them."""
    return full


def small_size(full: T, small: T) -> T:
    """Networks of the same structure that are narrower, shallower and read smaller inputs."""
    return small


@dataclass(frozen=True)
class Member:
    """A network of the zoo.

    Attributes:
        name: Unique within its family.
        build: Makes the network; pretrained weights are never fetched.
        inputs: Makes example inputs: a tuple of positional arguments, or a dict of keyword arguments.
        attention: Whether it holds attention between activations.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    attention: bool = False


@dataclass(frozen=True)
class Family:
    """Networks that one package offers.

    Attributes:
        name: For people.
        package: What Python imports.
        members: Imports the package and lists its networks; raises ImportError without it.
        small_members: Networks that are quick to prune, prove and train, of the same names: every structure among
            `members` once. None where the family has no small versions.
    """

    name: str
    package: str
    members: Callable[[], tuple[Member, ...]]
    small_members: Callable[[], tuple[Member, ...]] | None = None


def noise(*shapes: tuple[int, ...]) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Example inputs that are normal noise of given shapes."""
    return lambda: tuple(torch.randn(shape) for shape in shapes)


def volume(channels: int, side: int, dims: int) -> tuple[int, ...]:
    """Shape of one image or volume with equal sides."""
    return (1, channels, *(side,) * dims)
