"""How results of layers reach other layers, on networks whose graph a reader can draw."""

import torch
from torch import Tensor, nn

import ranp
from ranp.models import UNet3D


def wires(model: nn.Module, *inputs: Tensor) -> list[tuple[str, list[str]]]:
    """Each node by name (its kind where it has none), with the names of what it reads."""
    nodes = ranp.trace(model, inputs).nodes
    names = [node.name or node.kind for node in nodes]
    return [(name, [names[source] for source in node.sources]) for name, node in zip(names, nodes, strict=True)]


def test_a_u_net_joins_what_its_levels_make() -> None:
    model = UNet3D(1, 2, width=4, levels=2)
    found = wires(model, torch.zeros(1, 1, 8, 8, 8))
    assert found == [
        ("input", []),
        ("encoder.0.conv1", ["input"]),
        ("encoder.0.conv2", ["encoder.0.conv1"]),
        ("encoder.1.conv1", ["encoder.0.conv2"]),
        ("encoder.1.conv2", ["encoder.1.conv1"]),
        ("cat", ["encoder.0.conv2", "encoder.1.conv2"]),
        ("decoder.0.conv1", ["cat"]),
        ("decoder.0.conv2", ["decoder.0.conv1"]),
        ("head", ["decoder.0.conv2"]),
        ("output", ["head"]),
    ]
    nodes = ranp.trace(model, torch.zeros(1, 1, 8, 8, 8)).nodes
    assert [node.shape for node in nodes if node.kind in ("input", "output")] == [(1, 1, 8, 8, 8), (1, 2, 8, 8, 8)]


class Shared(nn.Module):
    """One layer that runs twice, a sum in place, a constant, and a second input that joins late."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again = nn.Conv1d(2, 4, 1), nn.Conv1d(4, 4, 1)
        self.norm = nn.InstanceNorm1d(4, affine=True)
        self.head = nn.Conv1d(4, 1, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        z = self.again(self.again(x))
        z += x
        return self.head(z * torch.ones(3)) - y


def test_a_layer_that_runs_twice_is_two_nodes_and_constants_are_none() -> None:
    assert wires(Shared(), torch.zeros(1, 2, 3), torch.zeros(1, 1, 3)) == [
        ("input", []),
        ("stem", ["input"]),
        ("again", ["stem"]),
        ("again", ["again"]),
        ("add", ["again", "stem"]),
        ("head", ["add"]),
        ("input", []),
        ("sub", ["head", "input"]),
        ("output", ["sub"]),
    ]
